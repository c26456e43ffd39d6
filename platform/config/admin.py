"""Admin pages of users and groups, which let nobody gain more rights."""

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.admin.history import GuardedForm
from config import groups

admin.site.index_title = "Dashboard"
admin.site.unregister(User)
admin.site.unregister(Group)


# Fields that cannot be used to act as another person.
_HARMLESS = {"first_name", "last_name", "is_active", "password"}


class PersonForm(GuardedForm, UserChangeForm):  # type: ignore[misc]  # unfold is untyped
    """A form that offers the groups that the actor may give and keeps the others.

    A form in an old tab cannot restore a group that was removed meanwhile.
    """

    # Set by the admin for each request.
    actor: User

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "groups" in self.fields:
            own = groups.may_give(self.actor)
            field = cast("forms.ModelMultipleChoiceField[Group]", self.fields["groups"])
            field.queryset = own
            if not self.actor.is_superuser:
                field.help_text = "Groups that you are in. Others stay as they are."

    def _seen(self) -> str:
        rights = (self.instance.groups, self.instance.user_permissions)
        held = [sorted(each.values_list("pk", flat=True)) for each in rights]
        return f"{super()._seen()} {held}"

    def _last_changed_by(self) -> None:
        # Users have no history.
        return None

    def clean_groups(self) -> Any:
        kept = self.instance.groups.exclude(pk__in=groups.may_give(self.actor))
        return Group.objects.filter(
            pk__in=[group.pk for group in (*self.cleaned_data["groups"], *kept)]
        )


@admin.register(User)
class PersonAdmin(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """Let operators manage users, but not give or take over rights that they lack."""

    form = PersonForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "email", "is_staff", "is_active", "last_login"]
    list_filter = ["is_staff", "is_active", "groups"]
    search_fields = ["username", "email", "first_name", "last_name"]
    fieldsets = (
        (None, {"fields": ("username", "password", "as_of")}),
        *(UserAdmin.fieldsets or ())[1:],
    )
    readonly_fields = ["last_login", "date_joined"]

    def get_form(
        self,
        request: HttpRequest,
        obj: User | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.actor = request.user
        return form

    def has_change_permission(
        self, request: HttpRequest, obj: User | None = None
    ) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(
        self, request: HttpRequest, obj: User | None = None
    ) -> bool:
        return super().has_delete_permission(request, obj) and _has_rights_of(
            request, obj
        )

    def get_readonly_fields(
        self, request: HttpRequest, obj: User | None = None
    ) -> list[str]:
        fields = list(super().get_readonly_fields(request, obj))
        if not _is_superuser(request):
            fields += ["is_superuser", "user_permissions"]
        if not _has_rights_of(request, obj):
            shown = (field.name for field in User._meta.get_fields())
            fields += [name for name in shown if name not in _HARMLESS]
        return fields

    def user_change_password(
        self,
        request: HttpRequest,
        id: str,  # noqa: A002  # Django names it.
        form_url: str = "",
    ) -> HttpResponse:
        if not _has_rights_of(request, self.get_object(request, id)):
            raise PermissionDenied
        return super().user_change_password(request, id, form_url)


@admin.register(Group)
class RoleAdmin(GroupAdmin, ModelAdmin):  # type: ignore[misc]
    """Let only superusers change groups, which would be a way to any permission."""

    list_display = ["name"]
    search_fields = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request)

    def has_change_permission(
        self, request: HttpRequest, obj: Group | None = None
    ) -> bool:
        return _is_superuser(request)

    def has_delete_permission(
        self, request: HttpRequest, obj: Group | None = None
    ) -> bool:
        return _is_superuser(request)


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))


def _may_touch(request: HttpRequest, person: User | None) -> bool:
    return person is None or not person.is_superuser or _is_superuser(request)


def _has_rights_of(request: HttpRequest, person: User | None) -> bool:
    return person is None or groups.may_take_over(cast(User, request.user), person)
