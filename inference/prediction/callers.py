"""Who is calling: from headers to a key that may be used from there. Pure."""

from accounts.admission import key_format
from accounts.admission.limits import ReachedLimit
from accounts.admission.networks import Networks, client_address
from inference.dialects import call_headers
from inference.dialects.dialect import Headers
from inference.errors import refusals
from inference.errors.api_error import ApiError
from inference.snapshot.keys import KeyEntry
from inference.snapshot.tables import Tables


def find_caller(tables: Tables, headers: call_headers.Headers, now: float) -> KeyEntry:
    """Find the key; raises ApiError UNAUTHENTICATED, or OVERLOADED without snapshot."""
    token = call_headers.token(headers)
    if not token:
        raise refusals.unauthenticated("missing")
    entry = tables.known_token(token)
    if entry is None:
        parsed = key_format.parse(token)
        entry = None if parsed is None else tables.find_key(parsed.digest)
        if entry is None:
            if parsed is not None and not tables.sequence:
                # Nothing was published yet: any key may be a valid one.
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
    entry: KeyEntry, peer: str, headers: call_headers.Headers, trusted: Networks
) -> None:
    """Raise ApiError FORBIDDEN if the key may not be used from where the caller is."""
    if entry.networks is None:
        return
    address = client_address(peer, headers.get(b"x-forwarded-for"), trusted)
    if not entry.networks.contain(address):
        raise refusals.outside_networks(address)


def rate_headers(
    tables: Tables,
    headers: call_headers.Headers,
    now: float,
    limit: ReachedLimit | None = None,
) -> Headers:
    """Give the rate headers of whoever sent these; none without a valid key.

    `limit` is the one that refused them, if one did.
    """
    try:
        admission = find_caller(tables, headers, now).admission
    except ApiError:
        return []
    return refusals.rate_headers(admission, limit, now)
