"""The part of a route's history page that tells and restores how calls were divided."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime

from registry.admin.history import HistoryAdmin
from registry.admin.lookup import get_or_404, require_key
from registry.models import Route
from registry.past import route_history
from registry.routes import RouteError
from registry.shares import canaries


class TrafficHistoryAdmin(HistoryAdmin):
    """Ask for the state of a route at a time, and offer to go back to any state."""

    object_history_list_template = "registry/route_history_list.html"

    def get_urls(self) -> list[URLPattern]:
        revert = path(
            "<path:object_id>/revert/<int:record_id>/",
            self.admin_site.admin_view(self.revert_view),
            name="registry_route_revert",
        )
        return [revert, *super().get_urls()]

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        require_key(self.model, object_id)
        route = self.get_object(request, object_id)
        context = {**(extra_context or {}), "asked_at": request.GET.get("at", "")}
        at = _time(context["asked_at"])
        if at is not None and route is not None:
            context["at"] = at
            context["state"] = route_history.state_at(route.registered_model, at)
        return super().history_view(request, object_id, context)

    def set_history_delta_changes(
        self, request: HttpRequest, historical_records: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Also note where each record that differs from the route is restored."""
        super().set_history_delta_changes(request, historical_records, *args, **kwargs)
        records = list(historical_records)
        if not records or not self.has_move_route_permission(request):
            return
        route = Route.objects.filter(pk=records[0].id).first()
        if route is None:
            return
        for record in records:
            if _traffic(record) != _traffic(route):
                record.revert_url = reverse(
                    "admin:registry_route_revert", args=(route.pk, record.pk)
                )
                record.seen = route.updated_at.isoformat()

    def revert_view(
        self, request: HttpRequest, object_id: str, record_id: int
    ) -> HttpResponse:
        """Divide calls as they were after one record of the history."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_move_route_permission(request):
            raise PermissionDenied
        require_key(self.model, object_id)
        route = get_or_404(self, request, object_id)
        seen = _time(request.POST.get("seen", ""))
        try:
            if seen is None:
                raise RouteError("The page is incomplete. Load it again.")
            changed = route_history.revert(
                route, to=record_id, by=request.user, seen=seen
            )
        except RouteError as error:
            messages.error(request, f"Nothing was changed. {error}")
        else:
            messages.success(
                request,
                f"{changed}. Requests move once the engines have loaded the versions.",
            )
        return HttpResponseRedirect(
            reverse("admin:registry_route_history", args=(route.pk,))
        )


def _traffic(row: Any) -> tuple[Any, ...]:
    return (
        row.enabled,
        row.default_version_id,
        canaries.of(row, suffix="_id"),
        row.shadow_version_id,
        row.shadow_percent,
    )


def _time(text: str) -> datetime | None:
    """Read a time in UTC, as a browser's field sends it; None if it is not one."""
    try:
        at = parse_datetime(text)
    except ValueError:
        return None
    if at is None:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
