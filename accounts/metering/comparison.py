"""What a shadow answered to copies of calls, as the spool carries it: never usage."""

import msgspec


class ComparedCalls(msgspec.Struct, frozen=True, gc=False):
    """Copies of one key's calls to one model, added up over about a second."""

    # When the first of the calls was answered: seconds since the epoch.
    at: float
    customer_id: int
    key_id: str
    model: str
    # The version that answered, and the one that got the copies.
    default: int
    shadow: int
    calls: int
    # Copies that the shadow answered with an error of its own.
    failed: int
    # The sum over calls of the share of their rows whose answer was another.
    changed: float
    rows: int
    changed_rows: int
    # The sum over rows of how far apart the answers were, each from 0 to 1.
    distance: float
    # Time on the device, of the calls and of their copies.
    default_us: int
    shadow_us: int
