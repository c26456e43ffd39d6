"""Keep a few inputs that shadows answered otherwise: at most 100, at most 7 days."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from django.db import DataError, transaction

from accounts.models import Customer
from inference.installation import example_files
from inference.installation.example_files import Example
from inference.models import ShadowExample
from registry.models import Route

logger = structlog.get_logger(__name__)

MOST = 100
KEPT = timedelta(days=7)


def take(folder: Path) -> None:
    """Move the examples that gateways wrote into the database."""
    for path, example in example_files.read(folder):
        if example is not None:
            try:
                _keep(path.stem, example)
            except DataError:
                # The others go on.
                logger.exception("example_not_kept", name=path.stem)
        path.unlink(missing_ok=True)


def delete_old(*, now: datetime) -> None:
    """Delete what is too old, or of a customer or a route that keeps none any more."""
    ShadowExample.objects.filter(at__lt=now - KEPT).delete()
    ShadowExample.objects.filter(customer__archived_at__isnull=False).delete()
    keeping = Route.objects.filter(keeps_examples=True)
    names = keeping.values("registered_model__name")
    ShadowExample.objects.exclude(model__in=names).delete()


@transaction.atomic
def _keep(name: str, example: Example) -> None:
    """Keep an example once, if its customer has not ended and its route allows it."""
    route = Route.objects.filter(registered_model__name=example.model)
    if not route.filter(keeps_examples=True).exists():
        return
    # Locked, so that a customer who is being deleted keeps none.
    customers = Customer.objects.select_for_update().filter(archived_at=None)
    if customers.filter(pk=example.customer_id).first() is None:
        return
    ShadowExample.objects.bulk_create(
        [
            ShadowExample(
                name=name,
                customer_id=example.customer_id,
                at=datetime.fromtimestamp(example.at, tz=UTC),
                request_id=example.request_id,
                model=example.model,
                default_version=example.default,
                shadow_version=example.shadow,
                body=example.body,
                default_answer=example.default_answer,
                shadow_answer=example.shadow_answer,
            )
        ],
        ignore_conflicts=True,
    )
    own = ShadowExample.objects.filter(model=example.model).order_by("-at", "-pk")
    surplus = list(own.values_list("pk", flat=True)[MOST:])
    if surplus:
        ShadowExample.objects.filter(pk__in=surplus).delete()
