"""Link a row's customer and API key only for people who may open them."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

# Fields that link to accounts: the permission to open them, and the text without it.
_LINKS = {
    "customer": ("accounts.view_customer", "customer_text"),
    "api_key": ("accounts.view_apikey", "api_key_text"),
}


class OwnedRowsAdmin(ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        texts = {
            name: text
            for name, (permission, text) in _LINKS.items()
            if not request.user.has_perm(permission)
        }
        return [
            (title, options | {"fields": [texts.get(f, f) for f in options["fields"]]})
            for title, options in super().get_fieldsets(request, obj)
        ]

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        texts = (text for _, text in _LINKS.values())
        return (*super().get_readonly_fields(request, obj), *texts)

    @admin.display(description="customer")
    def customer_text(self, row: Any) -> str:
        return str(row.customer)

    @admin.display(description="API key")
    def api_key_text(self, row: Any) -> str:
        return str(row.api_key)
