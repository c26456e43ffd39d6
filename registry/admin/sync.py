"""Show in a banner how the last sync went, with a button that starts one."""

from typing import Any

import structlog
from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from kombu.exceptions import OperationalError
from unfold.decorators import action

from registry.admin.dialogs import dialog, go_back
from registry.mlflow import client
from registry.models import RegisteredModel, RegistrySync
from registry.tasks import sync_registry

log = structlog.get_logger(__name__)


class RegistryPermissionsMixin:
    """Permission checks of the registry's actions, by name.

    unfold looks up dotted permission names in the database during Django's system
    checks, which would fail in an installation without tables.
    """

    def has_synchronise_permission(self, request: HttpRequest, *_: Any) -> bool:
        return _may(request, "registry.change_registrysync")

    def has_move_route_permission(self, request: HttpRequest, *_: Any) -> bool:
        return _may(request, "registry.change_route")

    def has_fetch_permission(self, request: HttpRequest, *_: Any) -> bool:
        return _may(request, "registry.change_modelversion")

    def has_make_site_default_permission(self, request: HttpRequest, *_: Any) -> bool:
        return _may(request, "registry.change_registeredmodel")


def _may(request: HttpRequest, permission: str) -> bool:
    return request.user.has_perm(permission)


class SyncBannerMixin(RegistryPermissionsMixin):
    """Show the banner above a list and "Sync now" beside its title."""

    list_before_template = "registry/sync_banner.html"
    actions_list = ["sync_now"]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            **(extra_context or {}),
            "sync": RegistrySync.objects.filter(pk=1).first(),
            "no_models_yet": not RegisteredModel.objects.exists(),
            "tracking_uri": client.shown_uri(settings.MLFLOW_TRACKING_URI),
        }
        response: HttpResponse = super().changelist_view(request, context)  # type: ignore[misc]  # mixed into a ModelAdmin
        return response

    @action(
        description="Sync now",
        icon="sync",
        permissions=["synchronise"],
        dialog=dialog(
            "Read MLflow now?",
            text="A worker looks for new models, versions and aliases.",
            submit="Sync now",
        ),
    )
    def sync_now(self, request: HttpRequest, form: forms.Form) -> HttpResponse:
        try:
            sync_registry.apply_async(retry=False)
        except (OperationalError, OSError) as error:
            log.warning("sync_not_queued", reason=error)
            messages.error(
                request,
                "The message broker cannot be reached, so no worker was asked. "
                "`modelyard sync_registry` synchronises without it.",
            )
        else:
            messages.success(
                request, "A worker was asked to sync. The line below shows how it went."
            )
        model = self.model._meta.model_name  # type: ignore[attr-defined]  # a ModelAdmin's
        otherwise = reverse(f"admin:registry_{model}_changelist")
        return go_back(request, otherwise=otherwise)
