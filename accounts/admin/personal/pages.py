"""Show people of the staff their own key, and make keys for pages of the admin."""

from typing import cast

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.customers import personal_keys, shown_once
from accounts.customers.api_keys import IssuedKey


@require_http_methods(["GET", "HEAD", "POST"])
def my_key(request: HttpRequest) -> HttpResponse:
    """Show the person's key, or make, rotate or revoke it."""
    person = _person(request)
    if request.method == "POST":
        try:
            return _change(request, person)
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(request.path)
    secret = shown_once.take(request)
    context = {
        **admin.site.each_context(request),
        "title": "My key",
        "key": personal_keys.current(person),
        "earlier": [key for key in personal_keys.of(person)[:10] if key.replaced_by_id],
        "token": secret and secret["token"],
        "days": personal_keys.LIFETIME.days,
        "public_url": settings.MODELYARD_PUBLIC_URL,
    }
    return render(request, "accounts/my_key.html", context)


@require_POST
def key_for_a_page(request: HttpRequest) -> JsonResponse:
    """Answer with the token of a new key that is valid for an hour."""
    try:
        issued = personal_keys.issue_for_page(_person(request))
    except ValidationError as error:
        return JsonResponse({"problem": " ".join(error.messages)}, status=409)
    return JsonResponse({"token": issued.token})


def _person(request: HttpRequest) -> User:
    if not personal_keys.may_hold(request.user):
        raise PermissionDenied
    return cast(User, request.user)


def _change(request: HttpRequest, person: User) -> HttpResponse:
    match request.POST.get("do"):
        case "make":
            return _show(request, personal_keys.issue(person))
        case "rotate":
            return _show(request, personal_keys.rotate(person))
        case "revoke":
            # Those that were rotated work for another day, perhaps in other hands.
            if personal_keys.end_those_of(person):
                messages.success(request, "Your keys are revoked.")
    return HttpResponseRedirect(request.path)


def _show(request: HttpRequest, issued: IssuedKey) -> HttpResponse:
    return shown_once.lead_to(request, request.path, {"token": issued.token})
