"""The life of an API key: issue, rotate, revoke, and recognise it again."""

import datetime
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import key_format
from accounts.limits import SCOPES
from accounts.models import ApiKey, Customer
from accounts.signals import access_changed

DEFAULT_OVERLAP = datetime.timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key with its token, which cannot be had again."""

    key: ApiKey
    token: str = field(repr=False)


@transaction.atomic
def issue(
    customer: Customer,
    *,
    name: str,
    scopes: Sequence[str],
    allowed_models: Sequence[str] = (),
    expires_at: datetime.datetime | None = None,
    mode: key_format.Mode = "live",
    created_by: User | None = None,
) -> IssuedKey:
    """Create a key; raise ValidationError for unknown scopes or a past expiry."""
    _check(scopes, expires_at)
    new = key_format.generate(mode)
    key = ApiKey.objects.create(
        customer=customer,
        name=name,
        mode=mode,
        key_id=new.key_id,
        digest=new.digest.hex(),
        scopes=[scope for scope in SCOPES if scope in scopes],
        allowed_models=sorted(set(allowed_models)),
        expires_at=expires_at,
        created_by=created_by,
    )
    access_changed.send(sender=ApiKey)
    return IssuedKey(key=key, token=new.token)


@transaction.atomic
def change(
    key: ApiKey,
    *,
    name: str,
    scopes: Sequence[str],
    allowed_models: Sequence[str],
    expires_at: datetime.datetime | None,
) -> ApiKey:
    """Change what a key may do and for how long, but not its token.

    Raise ValidationError for what `issue` would refuse, and for a revoked key.
    """
    key = ApiKey.objects.select_for_update().get(pk=key.pk)
    if key.state == ApiKey.State.REVOKED:
        raise ValidationError("A revoked key cannot be changed.")
    _check(scopes, expires_at if expires_at != key.expires_at else None)
    key.name = name
    key.scopes = [scope for scope in SCOPES if scope in scopes]
    key.allowed_models = sorted(set(allowed_models))
    key.expires_at = expires_at
    key.save(update_fields=["name", "scopes", "allowed_models", "expires_at"])
    access_changed.send(sender=ApiKey)
    return key


@transaction.atomic
def rotate(
    key: ApiKey,
    *,
    overlap: datetime.timedelta = DEFAULT_OVERLAP,
    created_by: User | None = None,
) -> IssuedKey:
    """Replace a key by one that may do the same and lives as long; the old one stays
    valid for `overlap`. Raise ValidationError if it is no longer active.
    """
    key = ApiKey.objects.select_for_update().get(pk=key.pk)
    if key.state != ApiKey.State.ACTIVE:
        raise ValidationError(f"An {key.state} key cannot be rotated: issue a new one.")
    now = timezone.now()
    lifetime = key.expires_at - key.created_at if key.expires_at else None
    issued = issue(
        key.customer,
        name=key.name,
        scopes=key.scopes,
        allowed_models=key.allowed_models,
        expires_at=now + lifetime if lifetime else None,
        mode="test" if key.mode == ApiKey.Mode.TEST else "live",
        created_by=created_by,
    )
    key.expires_at = min(key.expires_at or now + overlap, now + overlap)
    key.save(update_fields=["expires_at"])
    return issued


@transaction.atomic
def revoke(key: ApiKey) -> bool:
    """End a key for good; return whether it was not revoked before."""
    key = ApiKey.objects.select_for_update().get(pk=key.pk)
    if key.revoked_at is not None:
        return False
    key.revoked_at = timezone.now()
    key.save(update_fields=["revoked_at"])
    access_changed.send(sender=ApiKey)
    return True


def recognise(token: str) -> ApiKey | None:
    """Return the valid key of a token, with customer and plan; else None.

    A token that is mistyped costs no query.
    """
    parsed = key_format.parse(token.encode(errors="replace"))
    if parsed is None:
        return None
    key = (
        ApiKey.objects.valid(timezone.now())
        .select_related("customer__plan")
        .filter(key_id=parsed.key_id)
        .first()
    )
    # Found by its public id and then compared in constant time: how long a look-up
    # takes tells nothing about the secret.
    if key is None or not hmac.compare_digest(bytes.fromhex(key.digest), parsed.digest):
        return None
    return key


def _check(scopes: Sequence[str], expires_at: datetime.datetime | None) -> None:
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValidationError({"scopes": f"Unknown scopes: {', '.join(unknown)}."})
    if not scopes:
        raise ValidationError({"scopes": "A key needs at least one scope."})
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expires_at": "The expiry must lie in the future."})
