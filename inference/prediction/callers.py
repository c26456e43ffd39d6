"""Find a caller's key, and check that it may be used from the caller's network."""

from accounts.admission import key_format
from accounts.admission.limits import ReachedLimit
from accounts.admission.networks import Networks, client_address
from inference.dialects.dialect import Headers
from inference.errors import refusals
from inference.errors.api_error import ApiError
from inference.snapshot.keys import KeyEntry
from inference.snapshot.tables import Tables


def find_caller(tables: Tables, token: bytes | None, now: float) -> KeyEntry:
    """Find the key; raises ApiError UNAUTHENTICATED, or OVERLOADED without snapshot."""
    if not token:
        raise refusals.unauthenticated("missing")
    entry = tables.known_token(token)
    if entry is None:
        parsed = key_format.parse(token)
        entry = None if parsed is None else tables.find_key(parsed.digest)
        if entry is None:
            if parsed is not None and not tables.sequence:
                # Nothing was published yet, so any key may be valid.
                raise refusals.starting()
            raise refusals.unauthenticated(
                "malformed" if parsed is None else tables.why_ended(parsed.digest)
            )
        tables.remember_token(token, entry)
    expires_at = entry.key.expires_at
    if expires_at is not None and expires_at <= now:
        raise refusals.unauthenticated("expired")
    return entry


def require_network(
    entry: KeyEntry, peer: str, forwarded_for: bytes | None, trusted: Networks
) -> None:
    """Raise ApiError FORBIDDEN if the key may not be used from the caller's address."""
    if entry.networks is None:
        return
    address = client_address(peer, forwarded_for, trusted)
    if not entry.networks.contain(address):
        raise refusals.outside_networks(address)


def rate_headers(
    tables: Tables,
    token: bytes | None,
    now: float,
    limit: ReachedLimit | None = None,
) -> Headers:
    """Return the rate headers of a key; an empty list without a valid key.

    `limit` is the limit that refused the call, if one did.
    """
    try:
        admission = find_caller(tables, token, now).admission
    except ApiError:
        return []
    return refusals.rate_headers(admission, limit, now)
