"""Admin pages of uploaded files, where operators can delete them early."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from unfold.decorators import display

from inference.admin.owners import OwnedRowsAdmin
from inference.models import Upload
from inference.uploads import files

_STATES = {
    "awaited": "info",
    "stored": "success",
    "expired": "warning",
}


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in _STATES]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Upload]
    ) -> QuerySet[Upload]:
        now = timezone.now()
        conditions = {
            "awaited": Q(expires_at__gt=now, stored_at=None),
            "stored": Q(expires_at__gt=now, stored_at__isnull=False),
            "expired": Q(expires_at__lte=now),
        }
        return queryset.filter(conditions.get(self.value() or "", Q()))


@admin.register(Upload)
class UploadAdmin(OwnedRowsAdmin):
    """Facts about uploads; their content belongs to customers and is not shown."""

    list_display = (
        "id",
        "customer",
        "content_type",
        "size",
        "state",
        "created_at",
        "expires_at",
    )
    list_select_related = ("customer",)
    list_filter = (StateFilter, "content_type")
    search_fields = ("id", "customer__name", "sha256")
    date_hierarchy = "created_at"
    fields = (
        "id",
        "customer",
        "content_type",
        "size",
        "max_bytes",
        "state",
        "created_at",
        "stored_at",
        "expires_at",
        "sha256",
    )
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: Upload) -> None:
        files.remove(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        for upload in queryset:
            files.remove(upload)

    @display(description="Size", ordering="bytes", empty_value="–")
    def size(self, upload: Upload) -> str | None:
        if upload.stored_at is None:
            return None
        return str(filesizeformat(upload.bytes))

    @display(description="State", label=_STATES)
    def state(self, upload: Upload) -> str:
        if upload.expires_at <= timezone.now():
            return "expired"
        return "awaited" if upload.stored_at is None else "stored"
