"""Admin pages of rows that follow from other settings, so nobody edits them."""

from typing import Any

from django.http import HttpRequest, HttpResponse


class ReadOnly:
    """Let nobody add, change or delete rows."""

    # What nobody changes has none; an action that logs itself makes one.
    has_history = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {"show_history": self.has_history, **(extra_context or {})}
        response: HttpResponse = super().change_view(  # type: ignore[misc]
            request, object_id, form_url, context
        )
        return response
