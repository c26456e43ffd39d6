"""Authenticate callers of the API that Django serves, and check their scopes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.admission import key_format
from accounts.admission.limits import KeyProblem, Scope
from accounts.admission.networks import Networks
from accounts.customers import api_keys
from accounts.models import ApiKey

if TYPE_CHECKING:
    # Settings name these classes, so DRF's views import this module first.
    from rest_framework.views import APIView


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """A key in the place of Django's user: a caller is a key, not a person."""

    key: ApiKey
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True

    @property
    def pk(self) -> str:
        return self.key.key_id

    def __str__(self) -> str:
        return self.key.key_id


class ApiKeyAuthentication(BaseAuthentication):
    """Accept `Authorization: Bearer my_live_…` or `X-API-Key: my_live_…`.

    Sets `request.auth` to the ApiKey, with its customer and plan.
    """

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        if key_format.holds_key(request.META.get("QUERY_STRING", "").encode()):
            raise KeyInQuery
        token = _token(request)
        if not token:
            return None
        key = api_keys.recognise(token)
        if key is None:
            raise UnknownKey(api_keys.why_unknown(token))
        if key.allowed_networks:
            _require_network(key, client_address(request))
        return ApiCaller(key), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="modelyard"'


class OutsideNetworks(PermissionDenied):
    """The key is valid, but not at the caller's address."""

    default_detail = "This API key may not be used from your address."

    def __init__(self, address: str, key: ApiKey) -> None:
        super().__init__()
        self.address = address
        self.key = key


class LacksScope(PermissionDenied):
    """The key is valid, but lacks the scope for this."""

    default_detail = "This API key does not have the scope that is needed here."

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.scope = scope


class UnknownKey(AuthenticationFailed):
    """There is no such key, or it has ended."""

    def __init__(self, problem: KeyProblem | None) -> None:
        super().__init__()
        self.problem = problem


class KeyInQuery(AuthenticationFailed):
    """A key came in the URL, where logs and histories keep it."""


class HasScope(BasePermission):
    """Admit keys that have the view's `required_scope`."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        # A view without the attribute is a mistake of ours and fails loudly.
        scope: Scope = view.required_scope  # type: ignore[attr-defined]
        if not isinstance(request.auth, ApiKey):
            return False
        if scope not in request.auth.scopes:
            raise LacksScope(scope)
        return True


def client_address(request: HttpRequest) -> str:
    """Return the caller's address.

    A request over the site's own socket has none. Only the gateway can reach that
    socket, and it passes on the caller's address.
    """
    address: str = request.META.get("REMOTE_ADDR", "")
    if address:
        return address
    forwarded: str = request.META.get("HTTP_X_FORWARDED_FOR", "")
    return forwarded.rpartition(",")[2].strip()


def _require_network(key: ApiKey, address: str) -> None:
    if Networks(key.allowed_networks).contain(address):
        return
    raise OutsideNetworks(address, key)


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return request.headers.get("X-API-Key")
