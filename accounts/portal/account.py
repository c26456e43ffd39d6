"""Sign a person in, and let them set, change and recover their password."""

from typing import Any, cast

import structlog
from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods
from django_ratelimit.decorators import ratelimit
from kombu.exceptions import OperationalError

from accounts import tasks
from accounts.customers import members
from accounts.portal import access
from accounts.portal.forms import ForgottenForm

_BACKEND = "django.contrib.auth.backends.ModelBackend"
_LINK = "portal-link"
# A person who finds an open session must not be able to guess its password.
_CHANGES_PER_MINUTE = "10/m"
_pages = require_http_methods(["GET", "HEAD", "POST"])

logger = structlog.get_logger(__name__)


class SignInView(LoginView):
    template_name = "portal/sign_in.html"
    next_page = "portal:home"
    redirect_authenticated_user = True

    def get_success_url(self) -> str:
        """Return where `next` leads, unless that is this page: it would never end."""
        leads_to = super().get_success_url()
        is_here = leads_to == self.request.path
        return self.get_default_redirect_url() if is_here else leads_to

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        mail = members.mail_is_set_up()
        return super().get_context_data(mail_is_set_up=mail, **kwargs)


@sensitive_post_parameters()
@never_cache
@login_required(login_url=access.SIGN_IN)
@ratelimit(group="password", key="user", rate=_CHANGES_PER_MINUTE, method="POST")  # type: ignore[untyped-decorator]
@_pages
def account(request: HttpRequest) -> HttpResponse:
    """Show the account, or change its password, which ends other sessions."""
    person = cast(User, request.user)
    form = PasswordChangeForm(person, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        update_session_auth_hash(request, person)
        messages.success(
            request, "Your password is changed. You are signed out everywhere else."
        )
        return redirect("portal:account")
    return render(
        request,
        "portal/account.html",
        {"form": form, "section": "account", "customers": access.customers_of(person)},
        status=422 if form.errors else 200,
    )


@sensitive_post_parameters()
@never_cache
@_pages
def set_password(request: HttpRequest) -> HttpResponse:
    """Let the owner of a link choose a password, and sign them in.

    The link moves from the address into the session, so that it does not stay in the
    browser's history and is not sent as a Referer.
    """
    link = request.GET.get("link", request.session.get(_LINK, ""))
    person = members.of_link(link)
    if person is None:
        return render(request, "portal/link_ended.html", status=410)
    if "link" in request.GET:
        # Only for a good link, so that strangers cannot fill the table of sessions.
        request.session[_LINK] = link
        return redirect("portal:set-password")
    form = SetPasswordForm(person, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        members.welcome(person)
        request.session.pop(_LINK)
        login(request, person, backend=_BACKEND)
        messages.success(request, "Your password is set, and you are signed in.")
        return redirect("portal:home")
    return render(
        request,
        "portal/set_password.html",
        {"form": form, "person": person},
        status=422 if form.errors else 200,
    )


@never_cache
@_pages
def forgotten(request: HttpRequest) -> HttpResponse:
    """Send a link to set a new password; the answer is the same for any address."""
    form = ForgottenForm(request.POST or None)
    mail_is_set_up = members.mail_is_set_up()
    sent = mail_is_set_up and request.method == "POST" and form.is_valid()
    if sent:
        try:
            # By a worker: the time that an answer takes would show it as well.
            tasks.send_forgotten.apply_async((form.cleaned_data["email"],), retry=False)
        except (OperationalError, OSError) as error:
            logger.warning("forgotten_not_queued", reason=error)
    return render(
        request,
        "portal/forgotten.html",
        {"form": form, "sent": sent, "mail_is_set_up": mail_is_set_up},
    )
