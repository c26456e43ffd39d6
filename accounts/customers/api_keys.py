"""Issue, change, rotate, revoke and recognise API keys."""

import dataclasses
import datetime
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.admission import key_format, networks
from accounts.admission.limits import SCOPES, KeyProblem
from accounts.admission.overrides import MAX_QUOTA, MAX_RATE
from accounts.models import ApiKey, Customer
from accounts.signals import access_changed, model_names_wanted

DEFAULT_OVERLAP = datetime.timedelta(hours=24)
MAX_OVERLAP = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key with its token, which is stored nowhere."""

    key: ApiKey
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """A key's own limits, below its customer's; None: no limit of its own."""

    burst_requests: int | None = None
    sustained_requests: int | None = None
    daily_quota: int | None = None
    monthly_quota: int | None = None
    max_concurrency: int | None = None

    @classmethod
    def of(cls, key: ApiKey) -> "OwnLimits":
        return cls(**{name: getattr(key, name) for name in LIMIT_FIELDS})


MOST_MODELS = 200
_SHOWN_UNKNOWN = 5
LIMIT_FIELDS = tuple(own.name for own in dataclasses.fields(OwnLimits))


def known_models() -> list[str]:
    """Return the names of all registered models."""
    answers = model_names_wanted.send(sender=ApiKey)
    return sorted({name for _, names in answers for name in names or ()})


def read_lines(text: str) -> list[str]:
    """Read one entry per line, with any kind of line end; entries may have blanks."""
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def read_models(text: str, *, kept: Sequence[str] = ()) -> list[str]:
    """Read names of models, one per line.

    Raise ValidationError for too many, as every gateway holds them, and for names that
    no model has, except for those in `kept`, whose models may be gone by now.
    """
    names = sorted(set(read_lines(text)))
    if len(names) > MOST_MODELS:
        raise ValidationError(f"A key can name at most {MOST_MODELS} models.")
    unknown = sorted(set(names) - set(kept) - set(known_models())) if names else []
    if unknown:
        shown = ", ".join(f"“{name[:100]}”" for name in unknown[:_SHOWN_UNKNOWN])
        more = len(unknown) - _SHOWN_UNKNOWN
        rest = f" and {more} more" if more > 0 else ""
        raise ValidationError(
            f"There is no model {shown}{rest}. Write one name per line, as in the list"
            " of models."
        )
    return names


@transaction.atomic
def issue(
    customer: Customer,
    *,
    name: str,
    scopes: Sequence[str],
    allowed_models: Sequence[str] = (),
    allowed_networks: Sequence[str] = (),
    limits: OwnLimits = OwnLimits(),  # It is frozen.
    expires_at: datetime.datetime | None = None,
    mode: key_format.Mode = "live",
    created_by: User | None = None,
    first_key_id: str = "",
) -> IssuedKey:
    """Create a key.

    Raise ValidationError for an archived customer, unknown scopes, a past expiry, or
    networks or limits that are not valid.
    """
    if customer.archived_at is not None:
        raise ValidationError(f"{customer} is archived: it gets no keys.")
    _check(scopes, expires_at)
    _check_limits(limits)
    new = key_format.generate(mode)
    key = ApiKey.objects.create(
        customer=customer,
        name=name,
        mode=mode,
        key_id=new.key_id,
        digest=new.digest.hex(),
        scopes=[scope for scope in SCOPES if scope in scopes],
        allowed_models=sorted(set(allowed_models)),
        allowed_networks=_networks(allowed_networks),
        expires_at=expires_at,
        created_by=created_by,
        first_key_id=first_key_id,
        **dataclasses.asdict(limits),
    )
    access_changed.send(sender=ApiKey, rows=[key])
    return IssuedKey(key=key, token=new.token)


@transaction.atomic
def change(
    key: ApiKey,
    *,
    name: str,
    scopes: Sequence[str],
    allowed_models: Sequence[str],
    expires_at: datetime.datetime | None,
    allowed_networks: Sequence[str] | None = None,
    limits: OwnLimits | None = None,
) -> ApiKey:
    """Change what a key may do and for how long, but not its token.

    Networks and limits that are None stay as they are. Raise ValidationError for a
    revoked key, and for what `issue` refuses.
    """
    key = ApiKey.objects.select_for_update().get(pk=key.pk)
    if key.state == ApiKey.State.REVOKED:
        raise ValidationError("A revoked key cannot be changed.")
    _check(scopes, expires_at if expires_at != key.expires_at else None)
    key.name = name
    key.scopes = [scope for scope in SCOPES if scope in scopes]
    key.allowed_models = sorted(set(allowed_models))
    key.expires_at = expires_at
    changed = ["name", "scopes", "allowed_models", "expires_at"]
    if allowed_networks is not None:
        key.allowed_networks = _networks(allowed_networks)
        changed.append("allowed_networks")
    if limits is not None:
        _check_limits(limits)
        for field_name, limit in dataclasses.asdict(limits).items():
            setattr(key, field_name, limit)
        changed += LIMIT_FIELDS
    key.save(update_fields=changed)
    access_changed.send(sender=ApiKey, rows=[key])
    return key


@transaction.atomic
def rotate(
    key: ApiKey,
    *,
    overlap: datetime.timedelta = DEFAULT_OVERLAP,
    created_by: User | None = None,
) -> IssuedKey:
    """Replace a key by a new one that may do the same and lives as long.

    The old key stays valid for `overlap`, and both share one quota. Raise
    ValidationError if the key is not active, was rotated before, or if `overlap` is out
    of range.
    """
    if not datetime.timedelta() <= overlap <= MAX_OVERLAP:
        raise ValidationError(
            f"A rotated key stays valid for 0 to {MAX_OVERLAP.days} days."
        )
    key = ApiKey.objects.select_for_update().get(pk=key.pk)
    if key.state != ApiKey.State.ACTIVE:
        raise ValidationError(
            f"This key is {key.state}: it cannot be rotated. Issue a new one."
        )
    if key.replaced_by is not None and key.replaced_by.state == ApiKey.State.ACTIVE:
        raise ValidationError(
            f"This key was rotated already: {key.replaced_by.key_id} replaces it."
        )
    now = timezone.now()
    lifetime = key.expires_at - key.created_at if key.expires_at else None
    issued = issue(
        key.customer,
        name=key.name,
        scopes=key.scopes,
        allowed_models=key.allowed_models,
        allowed_networks=key.allowed_networks,
        limits=OwnLimits.of(key),
        expires_at=now + lifetime if lifetime else None,
        mode="test" if key.mode == ApiKey.Mode.TEST else "live",
        created_by=created_by,
        first_key_id=key.quota_key_id,
    )
    key.expires_at = min(key.expires_at or now + overlap, now + overlap)
    key.replaced_by = issued.key
    key.save(update_fields=["expires_at", "replaced_by"])
    access_changed.send(sender=ApiKey, rows=[key])
    return issued


@transaction.atomic
def revoke(key: ApiKey) -> bool:
    """End a key for good; return False if it was revoked before."""
    key = ApiKey.objects.select_for_update().get(pk=key.pk)
    if key.revoked_at is not None:
        return False
    key.revoked_at = timezone.now()
    key.save(update_fields=["revoked_at"])
    access_changed.send(sender=ApiKey, rows=[key])
    return True


def recognise(token: str) -> ApiKey | None:
    """Return the valid key of a token, with customer and plan, or None.

    A mistyped token costs no query.
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
    # The look-up is by public id and the comparison in constant time, so how long they
    # take says nothing about the secret.
    if key is None or not hmac.compare_digest(bytes.fromhex(key.digest), parsed.digest):
        return None
    return key


def why_unknown(token: str) -> KeyProblem | None:
    """Return why `recognise` finds no key; None: there never was such a key."""
    parsed = key_format.parse(token.encode(errors="replace"))
    if parsed is None:
        return "malformed"
    key = ApiKey.objects.select_related("customer").filter(key_id=parsed.key_id).first()
    if key is None or not hmac.compare_digest(bytes.fromhex(key.digest), parsed.digest):
        return None
    return why_ended(key, timezone.now())


def why_ended(key: ApiKey, now: datetime.datetime) -> KeyProblem:
    """Return why a key does not work any more."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "inactive"


def _check(scopes: Sequence[str], expires_at: datetime.datetime | None) -> None:
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValidationError({"scopes": f"Unknown scopes: {', '.join(unknown)}."})
    if not scopes:
        raise ValidationError({"scopes": "A key needs at least one scope."})
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expires_at": "The expiry must lie in the future."})


def _check_limits(limits: OwnLimits) -> None:
    for name in LIMIT_FIELDS:
        limit = getattr(limits, name)
        if limit is None:
            continue
        of_units = name.endswith("quota")
        least, most = (0, MAX_QUOTA) if of_units else (1, MAX_RATE)
        if not least <= limit <= most:
            raise ValidationError({name: f"It must be from {least} to {most}."})


def _networks(given: Sequence[str]) -> list[str]:
    try:
        return sorted({networks.normalised(text) for text in given})
    except ValueError as error:
        raise ValidationError({"allowed_networks": str(error)}) from error
