"""Celery tasks of the registry."""

from celery import shared_task

from registry import artifacts, sync
from registry.aliases import moving
from registry.models import ModelVersion


@shared_task
def sync_registry() -> None:
    sync.synchronise(artifacts.connect())


@shared_task
def fetch_artifact(version_id: int) -> None:
    artifacts.fetch(
        ModelVersion.objects.select_related("registered_model").get(pk=version_id)
    )


@shared_task
def move_alias(route_id: int) -> None:
    """Move a route's alias in MLflow to the version that became its default."""
    moving.move(artifacts.connect(), route_id)
