"""Describe customers and keys to gateways."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from accounts.admission.limits import Limits
from accounts.customers import api_keys, plans
from accounts.models import ApiKey, Customer
from inference.snapshot.contents import AccessKey, EndedKey

# Databases limit the parameters of a query.
_AT_ONCE = 500
# Callers with an older ended key only learn that the key is unknown.
_MOST_ENDED_KEYS = 5000
_KEY_FIELDS = (
    "pk",
    "key_id",
    "digest",
    "customer_id",
    "scopes",
    "allowed_models",
    "allowed_networks",
    "expires_at",
    "revoked_at",
    "mode",
    "first_key_id",
    *api_keys.LIMIT_FIELDS,
)


def every_customer() -> dict[int, Limits]:
    """Return the limits of every active customer."""
    active = Customer.objects.filter(active=True).select_related("plan")
    return {customer.pk: plans.limits_of(customer) for customer in active}


def customers(ids: Collection[int], *, plan_ids: Collection[int]) -> dict[int, Any]:
    """Return the limits of these customers and of all customers of these plans.

    None: the customer is not active or does not exist.
    """
    found: dict[int, Limits | None] = dict.fromkeys(ids)
    rows = Customer.objects.filter(Q(pk__in=ids) | Q(plan_id__in=plan_ids))
    for customer in rows.select_related("plan"):
        found[customer.pk] = plans.limits_of(customer) if customer.active else None
    return found


def every_key(limits: Mapping[int, Limits], *, now: datetime) -> list[AccessKey]:
    """Describe each valid key of the customers that have limits."""
    valid = ApiKey.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None
    ).order_by("pk")
    # Rows, not models: 100,000 keys must fit into the second that we promise.
    rows = valid.values_list(*_KEY_FIELDS, named=True).iterator(chunk_size=5000)
    return _describe([row for row in rows if row.customer_id in limits], limits)


def keys(
    digests: Collection[str],
    *,
    customer_ids: Collection[int],
    limits: Mapping[int, Limits],
    now: datetime,
) -> dict[bytes, AccessKey | None]:
    """Describe these keys, those of these customers, and keys that share their limits.

    By digest. None: the key is not valid or does not exist.
    """
    found: dict[bytes, AccessKey | None] = {
        bytes.fromhex(digest): None for digest in digests
    }
    rows = {
        row.digest: row
        for name, values in (("digest", digests), ("customer_id", customer_ids))
        for some in _portions(list(values))
        for row in _rows(Q(**{f"{name}__in": some}))
    }
    for some in _portions(list(rows.values())):
        first = {row.first_key_id or row.key_id for row in some}
        # The customer's index narrows the search; a key and its heirs share a customer.
        together = Q(key_id__in=first) | Q(first_key_id__in=first)
        owners = {row.customer_id for row in some}
        rows |= {row.digest: row for row in _rows(together, customer_id__in=owners)}
    valid = []
    for row in sorted(rows.values(), key=lambda row: row.pk):
        found[bytes.fromhex(row.digest)] = None
        if (
            row.revoked_at is None
            and (row.expires_at is None or row.expires_at > now)
            and row.customer_id in limits
        ):
            valid.append(row)
    return found | {key.digest: key for key in _describe(valid, limits)}


def ended_keys(digests: Collection[bytes], *, now: datetime) -> Iterator[EndedKey]:
    """Return why these keys are refused, for those that have ended."""
    for some in _portions([digest.hex() for digest in digests]):
        yield from _ended(ApiKey.objects.filter(digest__in=some), now)


def newest_ended_keys(*, now: datetime) -> Iterator[EndedKey]:
    """Return why the newest ended keys are refused, so that callers can be told."""
    newest = ApiKey.objects.ended(now).order_by("-pk")
    yield from _ended(newest[:_MOST_ENDED_KEYS], now)


def _ended(keys: QuerySet[ApiKey], now: datetime) -> Iterator[EndedKey]:
    for key in keys.select_related("customer").only(
        "digest", "revoked_at", "expires_at", "customer__active"
    ):
        reason = api_keys.why_ended(key, now)
        yield EndedKey(digest=bytes.fromhex(key.digest), reason=reason)


def _rows(*conditions: Q, **fields: Any) -> Any:
    rows = ApiKey.objects.filter(*conditions, **fields)
    return rows.values_list(*_KEY_FIELDS, named=True)


def _portions(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _describe(rows: list[Any], limits: Mapping[int, Limits]) -> list[AccessKey]:
    """Describe valid keys, which are in order of creation."""
    # A key and its heirs count together, with the limits of the newest.
    heirs = {row.first_key_id: row for row in rows if row.first_key_id}
    return [
        _access_key(
            row,
            heirs.get(row.first_key_id or row.key_id, row),
            limits[row.customer_id],
        )
        for row in rows
    ]


def _access_key(key: Any, limited_as: Any, limits: Limits) -> AccessKey:
    return AccessKey(
        key_id=key.key_id,
        digest=bytes.fromhex(key.digest),
        customer_id=key.customer_id,
        scopes=tuple(key.scopes),
        models=tuple(key.allowed_models),
        expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        limits=plans.key_limits_of(limited_as, limits),
        networks=tuple(key.allowed_networks),
        test=key.mode == ApiKey.Mode.TEST,
        quota_key_id=key.first_key_id,
    )
