"""List, invite and remove the people who sign in for a customer."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminEmailInputWidget

from accounts.admin.lookup import get_or_404
from accounts.customers import changes, members, shown_once
from accounts.models import Customer


class InviteForm(forms.Form):
    email = forms.EmailField(
        label="E-mail address",
        max_length=150,
        widget=UnfoldAdminEmailInputWidget,
        help_text="It is also the name to sign in with.",
    )


class MemberInline(TabularInline):  # type: ignore[misc]  # unfold is untyped
    """Remove members; they are added by inviting them."""

    model = Customer.members.through
    fields = readonly_fields = ("person", "email", "signed_in", "new_link")
    extra = 0
    hide_title = True
    verbose_name = "person"
    verbose_name_plural = "People who may sign in for this customer"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related("user").order_by("user__username")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("accounts.view_customer")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("accounts.change_customer")

    @display(description="person")
    def person(self, row: Any) -> str:
        return str(row.user.get_username())

    @display(description="e-mail")
    def email(self, row: Any) -> str:
        return row.user.email or "none"

    @display(description="last signed in")
    def signed_in(self, row: Any) -> str:
        if not row.user.is_active:
            return "deactivated"
        if not row.user.has_usable_password():
            return "invited, has set no password yet"
        last = row.user.last_login
        return date_format(last, "DATETIME_FORMAT") if last else "never"

    @display(description="password")
    def new_link(self, row: Any) -> SafeString | str:
        if not members.may_have_link(row.user) or not row.user.email:
            return "set by an administrator"
        invite = reverse("admin:accounts_customer_invite", args=(row.customer_id,))
        return format_html(
            '<a class="text-link" href="{}?{}" aria-label="New link for {}">'
            "New link</a>",
            invite,
            urlencode({"email": row.user.email}),
            row.user.get_username(),
        )


class MemberActions:
    """Mixed into the admin of customers."""

    def save_formset(
        self, request: HttpRequest, form: Any, formset: Any, change: bool
    ) -> None:
        """Keep in the history who was removed, which no field of the customer tells."""
        super().save_formset(request, form, formset, change)  # type: ignore[misc]
        if formset.model is Customer.members.through:
            for row in formset.deleted_objects:
                name = row.user.get_username()
                changes.note(form.instance, f"Removed {name}")

    def has_invite_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        return request.user.has_perm("accounts.change_customer")

    @action(description="Invite person", icon="person_add", permissions=["invite"])
    def invite(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for an address, and send its owner a link, or show it once."""
        customer = get_or_404(self, request, object_id)
        back = reverse("admin:accounts_customer_change", args=(customer.pk,))
        if customer.archived_at is not None:
            messages.error(request, f"{customer} is archived. Reopen it first.")
            return HttpResponseRedirect(back)
        initial = {"email": request.GET.get("email", "")}
        form = InviteForm(request.POST or None, initial=initial)
        context: dict[str, Any] = {"customer": customer, "form": form, "back_url": back}
        if request.method == "POST" and form.is_valid():
            try:
                invitation = members.invite(customer, **form.cleaned_data)
            except ValidationError as error:
                form.add_error("email", error.messages)
            else:
                name = invitation.person.get_username()
                self.log_change(request, customer, f"Invited {name}.")  # type: ignore[attr-defined]
                changes.note(customer, f"Invited {name}")
                if not invitation.link:
                    messages.success(request, _what_happened(invitation, customer))
                    return HttpResponseRedirect(back)
                here = reverse("admin:accounts_customer_invite", args=(customer.pk,))
                return shown_once.lead_to(
                    request, here, {"name": name, "link": invitation.link}
                )
        if shown_once.is_asked_for(request):
            context["invitation"] = shown_once.take(request)
            if context["invitation"] is None:
                messages.info(request, "This link was shown once. Make a new one.")
                return HttpResponseRedirect(back)
        frame = self.admin_site.each_context(request)  # type: ignore[attr-defined]
        context |= {
            "title": f"Invite a person to {customer}",
            "opts": self.opts,  # type: ignore[attr-defined]
            "mail_is_set_up": members.mail_is_set_up(),
        }
        return render(request, "accounts/invite.html", {**frame, **context})


def _what_happened(invitation: members.Invitation, customer: Customer) -> str:
    name = invitation.person.get_username()
    if members.may_have_link(invitation.person) and not invitation.is_new:
        return f"A link to set a new password was sent to {name}."
    if not invitation.person.has_usable_password():
        return f"{name} is invited: a link to set a password was sent."
    told = ", and was told by e-mail" if invitation.mailed else ""
    return f"{name} may now sign in for {customer}{told}."
