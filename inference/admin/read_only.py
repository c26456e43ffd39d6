"""Admin pages of rows that follow from other settings, so nobody edits them."""

from typing import Any

from django.http import HttpRequest


class ReadOnly:
    """Let nobody add, change or delete rows."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
