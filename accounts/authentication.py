"""Who calls the API that Django serves. DRF classes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts import api_keys
from accounts.limits import Scope
from accounts.models import ApiKey

if TYPE_CHECKING:
    # Settings name these classes, so DRF's views import this module first.
    from rest_framework.views import APIView

# One sentence for unknown, expired and revoked keys: it tells nothing to a guesser.
_FAILED = "The API key is not valid."


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """Stands where Django has a user: a caller is a key, not a person."""

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
        token = _token(request)
        if token is None:
            return None
        key = api_keys.recognise(token)
        if key is None:
            raise AuthenticationFailed(_FAILED)
        return ApiCaller(key), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="modelyard"'


class HasScope(BasePermission):
    """Let keys pass that have the scope named by the view's `required_scope`."""

    message = "This API key does not have the scope that is needed here."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        # A view without the attribute is a mistake of ours and fails loudly.
        scope: Scope = view.required_scope  # type: ignore[attr-defined]
        return isinstance(request.auth, ApiKey) and scope in request.auth.scopes


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("X-API-Key")
