"""Signing in, guarded against guessing."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django_ratelimit.decorators import ratelimit

from config.client_address import client_address

# Enough for a forgotten password, too few to try many.
ATTEMPTS_PER_MINUTE = "10/m"


@ratelimit(group="login", key=client_address, rate=ATTEMPTS_PER_MINUTE, method="POST")  # type: ignore[untyped-decorator]
def login(request: HttpRequest) -> Any:
    """Serve the admin's login page, and refuse an address that tries too often."""
    return admin.site.login(request)
