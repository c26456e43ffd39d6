"""Show the history of rows in the admin, and guard forms against lost changes."""

import hashlib
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin

from accounts.admin.lookup import require_key


class _AsOf(forms.CharField):
    def has_changed(self, initial: Any, data: Any) -> bool:
        # People do not change this field.
        return False


class GuardedForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Refuse to save if somebody changed the row since the page was opened.

    A form writes all its fields back, so it would undo that change.
    """

    # A hash of the fields when the page was made.
    as_of = _AsOf(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["as_of"] = self._seen()

    def _seen(self) -> str:
        held = [
            (field.name, field.value_from_object(self.instance))
            for field in self.instance._meta.concrete_fields
            if field.name in self.fields
        ]
        return hashlib.sha256(repr(held).encode()).hexdigest()[:32]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("as_of") and cleaned["as_of"] != self.initial.get("as_of"):
            self.add_error(
                None,
                f"{self._last_changed_by() or 'Somebody'} has changed this"
                f" {self.instance._meta.verbose_name} since you opened this page."
                " Load the page again and repeat your change.",
            )
        return cleaned

    def _last_changed_by(self) -> Any:
        newest = self.instance.history.select_related("history_user").first()
        return newest and newest.history_user


class HistoryAdmin(SimpleHistoryAdmin, ModelAdmin):  # type: ignore[misc]  # both untyped
    """Show who changed what, and let nobody restore an old state.

    That would skip our checks, and make a revoked key valid again.
    """

    form = GuardedForm

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # Deleted rows have a history too, so the object is not looked up.
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
        # "Close" leads to the history already. The other button is for pages that these
        # records do not have, and its script would fail.
        extra_context = {**(extra_context or {}), "show_history": False}
        response: HttpResponse = super().history_form_view(
            request, object_id, version_id, extra_context
        )
        return response

    def revert_disabled(self, request: HttpRequest, obj: Any = None) -> bool:
        return True
