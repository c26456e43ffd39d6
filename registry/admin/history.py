"""Rows with a history in the admin."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin

from registry.admin.lookup import require_key


class HistoryAdmin(SimpleHistoryAdmin, ModelAdmin):  # type: ignore[misc]  # both untyped
    """Show who changed what, and let nobody post an old state back.

    Going back by that form would skip our checks, and could bring back a value that
    the person may not set, like `trusted`.
    """

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # What was deleted has a history too, so no object is looked for.
        require_key(self.model, object_id)
        response: HttpResponse = super().history_view(request, object_id, extra_context)
        return response

    def history_form_view(
        self,
        request: HttpRequest,
        object_id: str,
        version_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method != "GET":
            raise PermissionDenied
        # "Close" leads to the history; another button would be made for records of
        # it, which have no page, and its script would fail.
        extra_context = {**(extra_context or {}), "show_history": False}
        response: HttpResponse = super().history_form_view(
            request, object_id, version_id, extra_context
        )
        return response

    def revert_disabled(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
