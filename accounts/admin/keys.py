"""Issue, rotate and revoke API keys in the admin; a token is shown once."""

import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import (
    AutocompleteSelectFilter,
    ChoicesDropdownFilter,
    DropdownFilter,
)
from unfold.decorators import action, display

from accounts.admin import columns
from accounts.admin.history import HistoryAdmin
from accounts.admin.key_forms import KeyForm, RotateForm
from accounts.admin.lookup import get_or_404
from accounts.admin.plans import leave_dialog
from accounts.customers import api_keys, shown_once
from accounts.models import ApiKey


class StateFilter(DropdownFilter):  # type: ignore[misc]  # unfold is untyped
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return ApiKey.State.choices

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ApiKey]
    ) -> QuerySet[ApiKey]:
        expired = Q(expires_at__lte=timezone.now())
        match self.value():
            case ApiKey.State.REVOKED:
                return queryset.filter(revoked_at__isnull=False)
            case ApiKey.State.EXPIRED:
                return queryset.filter(expired, revoked_at=None)
            case ApiKey.State.ACTIVE:
                return queryset.filter(revoked_at=None).exclude(expired)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(HistoryAdmin):
    form = KeyForm
    list_display = (
        "name",
        "public_id",
        "customer_name",
        "mode",
        "key_state",
        "scope_list",
        "last_used_at",
        "expires_at",
    )
    list_select_related = ("customer",)
    list_filter = (
        StateFilter,
        ("mode", ChoicesDropdownFilter),
        ("customer", AutocompleteSelectFilter),
    )
    list_filter_submit = True
    search_fields = ("name", "key_id", "customer__name")
    ordering = ("-created_at", "-pk")
    list_per_page = 50
    autocomplete_fields = ("customer",)
    history_list_display = ("scopes", "expires_at", "revoked_at")
    actions_detail = ("rotate", "revoke")
    readonly_fields = (
        "public_id",
        "badge",
        "last_used_at",
        "created_at",
        "created_by_name",
        "revoked_at",
        "replaced_by",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        may = ("scopes", "allowed_models", "allowed_networks", "expires_at")
        own = (
            ("burst_requests", "sustained_requests", "max_concurrency"),
            ("daily_quota", "monthly_quota"),
        )
        limits = ("Its own limits", {"fields": own, "classes": ("collapse",)})
        if obj is None:
            return (
                (None, {"fields": ("customer", "name", "mode")}),
                ("What it may do", {"fields": may}),
                limits,
            )
        life = (
            "created_at",
            "created_by_name",
            "last_used_at",
            "revoked_at",
            "replaced_by",
        )
        key = ("public_id", "badge", "customer", "name", "mode", "as_of")
        return (
            (None, {"fields": key}),
            ("What it may do", {"fields": may}),
            limits,
            ("Its life", {"fields": life}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.readonly_fields
        # A key never moves to another customer: its usage would stay behind.
        return (*self.readonly_fields, "customer", "mode")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if isinstance(obj, ApiKey) and obj.state == ApiKey.State.REVOKED:
            return False
        return bool(super().has_change_permission(request, obj))

    # Methods, because unfold looks up names of permissions in the database during
    # Django's checks, which also run before the first migration.
    def has_revoke_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        return request.user.has_perm("accounts.change_apikey")

    def has_rotate_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        return self.has_revoke_permission(request) and self.has_add_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Usage names keys, so they are revoked and stay.
        return False

    def save_model(
        self, request: HttpRequest, obj: ApiKey, form: Any, change: bool
    ) -> None:
        if change:
            api_keys.change(
                obj,
                name=obj.name,
                scopes=obj.scopes,
                allowed_models=obj.allowed_models,
                expires_at=obj.expires_at,
                allowed_networks=obj.allowed_networks,
                limits=api_keys.OwnLimits.of(obj),
            )
            return
        issued = api_keys.issue(
            obj.customer,
            name=obj.name,
            scopes=obj.scopes,
            allowed_models=obj.allowed_models,
            expires_at=obj.expires_at,
            allowed_networks=obj.allowed_networks,
            limits=api_keys.OwnLimits.of(obj),
            mode="test" if obj.mode == ApiKey.Mode.TEST else "live",
            created_by=request.user,  # type: ignore[arg-type]
        )
        obj.pk = issued.key.pk
        obj.refresh_from_db()
        # Lives as long as this request; `response_add` shows it.
        request.issued_key = issued  # type: ignore[attr-defined]

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # The other two buttons would skip the page that shows the token.
        plain = {"show_save_and_add_another": False, "show_save_and_continue": False}
        response: HttpResponse = super().add_view(
            request, form_url, {**(extra_context or {}), **plain}
        )
        return response

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return _lead_to_token(request, request.issued_key)  # type: ignore[attr-defined]

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<path:object_id>/issued/",
            self.admin_site.admin_view(self.issued_view),
            name="accounts_apikey_issued",
        )
        return [own, *super().get_urls()]

    def issued_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show a new key's token once; a reload redirects to the key.

        No cache keeps it: the admin sends `no-store` with every page.
        """
        key = get_or_404(self, request, object_id)
        if not self.has_add_permission(request):
            raise PermissionDenied
        secret = shown_once.take(request)
        if secret is None:
            messages.info(request, f"The token of {key} was shown once.")
            return HttpResponseRedirect(_change_url(key))
        return render(
            request,
            "accounts/key_issued.html",
            {
                **self.admin_site.each_context(request),
                "title": f"API key {key.name}",
                "opts": self.opts,
                "key": key,
                "token": secret["token"],
                "replaced": key.replaces.first(),
                "public_url": settings.MODELYARD_PUBLIC_URL,
            },
        )

    @action(description="Rotate", icon="autorenew", permissions=["rotate"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how long the old key stays valid, then show the new one's token."""
        key = get_or_404(self, request, object_id)
        form = RotateForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            overlap = datetime.timedelta(hours=form.cleaned_data["overlap_hours"])
            try:
                issued = api_keys.rotate(
                    key,
                    overlap=overlap,
                    created_by=request.user,  # type: ignore[arg-type]
                )
            except ValidationError as error:
                messages.error(request, " ".join(error.messages))
                return HttpResponseRedirect(_change_url(key))
            key.refresh_from_db()
            self.log_change(request, key, f"Rotated: replaced by {issued.key}.")
            self.log_addition(request, issued.key, f"Issued to replace {key}.")
            return _lead_to_token(request, issued)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Rotate {key.name}",
            "opts": self.opts,
            "key": key,
            "form": form,
            "back_url": _change_url(key),
        }
        return render(request, "accounts/rotate_key.html", context)

    @action(
        description="Revoke",
        icon="block",
        permissions=["revoke"],
        dialog={
            "title": "Revoke this key?",
            "description": "Calls with it are refused within a second, and for good.",
            "form_submit_text": "Revoke",
        },
    )
    def revoke(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        key = get_or_404(self, request, object_id)
        if api_keys.revoke(key):
            self.log_change(request, key, "Revoked.")
            messages.success(request, f"{key} is revoked.")
        else:
            messages.info(request, f"{key} was revoked before.")
        return leave_dialog(request, _change_url(key))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer no action for a revoked key, and no rotation of an expired one."""
        key = self.get_object(request, object_id)
        actions: list[Any] = super().get_actions_detail(request, object_id)
        if key is None or key.state == ApiKey.State.REVOKED:
            return []
        if key.state == ApiKey.State.EXPIRED:
            return [
                action
                for action in actions
                if not action.action_name.endswith("rotate")
            ]
        return actions

    @display(description="key id", ordering="key_id")
    def public_id(self, key: ApiKey) -> SafeString:
        return columns.code(key.key_id)

    @display(description="created by", empty_value="–")
    def created_by_name(self, key: ApiKey) -> str | None:
        return columns.name_of(key.created_by)

    @display(description="customer", ordering="customer__name")
    def customer_name(self, key: ApiKey) -> SafeString:
        return columns.customer_link(key.customer)

    @display(description="state", label=columns.STATE_LABELS)
    def key_state(self, key: ApiKey) -> str:
        return key.state.value

    @display(description="state")
    def badge(self, key: ApiKey) -> SafeString:
        return columns.key_state(key)

    @display(description="scopes")
    def scope_list(self, key: ApiKey) -> SafeString:
        return columns.words(key.scopes, none="none")


def _change_url(key: ApiKey) -> str:
    return reverse("admin:accounts_apikey_change", args=(key.pk,))


def _lead_to_token(request: HttpRequest, issued: api_keys.IssuedKey) -> HttpResponse:
    url = reverse("admin:accounts_apikey_issued", args=(issued.key.pk,))
    return shown_once.lead_to(request, url, {"token": issued.token})
