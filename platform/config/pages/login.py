"""Sign-in pages, with a limit that stops password guessing."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.http import HttpRequest
from django_ratelimit.decorators import ratelimit

from accounts.portal import account
from config.middleware.client_address import client_address

# Enough for a person who has forgotten a password, too few for guessing.
ATTEMPTS_PER_MINUTE = "10/m"


@ratelimit(group="login", key=client_address, rate=ATTEMPTS_PER_MINUTE, method="POST")  # type: ignore[untyped-decorator]
def login(request: HttpRequest) -> Any:
    """Serve the admin's login page; refuse an address that tries too often."""
    return admin.site.login(request)


_sign_in_page = account.SignInView.as_view()
portal_sign_out = LogoutView.as_view(next_page="portal-sign-in")


# Both pages share one count, so trying both gains nothing.
@ratelimit(group="login", key=client_address, rate=ATTEMPTS_PER_MINUTE, method="POST")  # type: ignore[untyped-decorator]
def portal_sign_in(request: HttpRequest) -> Any:
    """Serve the portal's sign-in page under the admin's limit on guessing."""
    return _sign_in_page(request)


# The same count again: repeated requests for mail are guesses too.
@ratelimit(group="login", key=client_address, rate=ATTEMPTS_PER_MINUTE, method="POST")  # type: ignore[untyped-decorator]
def portal_forgotten(request: HttpRequest) -> Any:
    """Serve the page for forgotten passwords under the admin's limit on guessing."""
    return account.forgotten(request)
