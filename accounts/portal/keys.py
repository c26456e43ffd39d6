"""Let customers make, rotate and revoke their own keys; a token is shown once."""

from typing import cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from accounts.customers import api_keys, own_keys, shown_once
from accounts.models import Customer
from accounts.portal import access
from accounts.portal.forms import OwnKeyForm, OwnRotateForm

# The newest keys that have ended.
_SHOWN_ENDED = 50
# Active keys on one page.
_SHOWN_ACTIVE = 100
_pages = require_http_methods(["GET", "HEAD", "POST"])


@access.for_members
@_pages
def index(request: HttpRequest, customer: Customer) -> HttpResponse:
    """List the keys, or make a new one."""
    form = OwnKeyForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            issued = issue(customer, form, by=cast(User, request.user))
        except ValidationError as error:
            form.add_error(None, error.messages)
        else:
            return _lead_to_token(request, customer, issued)
    usable = own_keys.active(customer)
    ended = own_keys.of(customer).exclude(pk__in=usable.order_by().values("pk"))
    page = Paginator(usable, _SHOWN_ACTIVE).get_page(request.GET.get("page"))
    return access.show(
        request,
        customer,
        "keys.html",
        section="keys",
        status=422 if form.errors else 200,
        active_keys=page,
        ended_keys=ended.select_related("replaced_by")[:_SHOWN_ENDED],
        may_make=own_keys.may_make(customer),
        form=form,
    )


def issue(customer: Customer, form: OwnKeyForm, *, by: User) -> api_keys.IssuedKey:
    """Issue the key that a member asked for; raises what `own_keys.issue` raises."""
    return own_keys.issue(
        customer,
        name=form.cleaned_data["name"],
        scopes=form.cleaned_data["scopes"],
        allowed_models=form.cleaned_data["allowed_models"],
        expires_at=form.expires_at,
        mode="test" if form.cleaned_data["mode"] == "test" else "live",
        created_by=by,
    )


@access.for_members
@_pages
def rotate(request: HttpRequest, customer: Customer, key_id: str) -> HttpResponse:
    """Ask how long the old key stays valid, then show the new one's token."""
    key = get_object_or_404(own_keys.of(customer), key_id=key_id)
    form = OwnRotateForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            issued = own_keys.rotate(
                customer, key, overlap=form.overlap, by=cast(User, request.user)
            )
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return redirect("portal:keys", customer_id=customer.pk)
        return _lead_to_token(request, customer, issued)
    return access.show(
        request, customer, "rotate.html", section="keys", key=key, form=form
    )


@access.for_members
@_pages
def revoke(request: HttpRequest, customer: Customer, key_id: str) -> HttpResponse:
    """Ask for confirmation, then revoke a key."""
    key = get_object_or_404(own_keys.of(customer), key_id=key_id)
    if request.method != "POST":
        return access.show(request, customer, "revoke.html", section="keys", key=key)
    if api_keys.revoke(key):
        messages.success(
            request, f"“{key.name}” is revoked: calls with it are refused."
        )
    return redirect("portal:keys", customer_id=customer.pk)


def _lead_to_token(
    request: HttpRequest, customer: Customer, issued: api_keys.IssuedKey
) -> HttpResponse:
    url = reverse("portal:issued", args=(customer.pk, issued.key.key_id))
    return shown_once.lead_to(request, url, {"token": issued.token})


@access.for_members
@require_safe
def issued(request: HttpRequest, customer: Customer, key_id: str) -> HttpResponse:
    """Show a new key's token once; a reload redirects to the list of keys."""
    key = get_object_or_404(own_keys.of(customer), key_id=key_id)
    secret = shown_once.take(request)
    if secret is None:
        messages.info(
            request, f"“{key.name}” was shown once. If nobody has it, rotate the key."
        )
        return redirect("portal:keys", customer_id=customer.pk)
    return access.show(
        request,
        customer,
        "key_issued.html",
        section="keys",
        key=key,
        token=secret["token"],
        replaced=key.replaces.first(),
    )
