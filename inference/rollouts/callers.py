"""Tell many callers from one who calls often, whose calls are not as many proofs."""

# So many keys with the same trouble are more than one odd caller.
LEAST_KEYS = 3
# What was counted of keys stays known for so many minutes of the calls' own time, for
# so many keys.
_MINUTES_KEPT = 10
MOST_KEPT = 2_000


def note(keys: list[str], key_id: str) -> None:
    """Add a key to the first ones, up to as many as are more than one caller."""
    if len(keys) < LEAST_KEYS and key_id not in keys:
        keys.append(key_id)


def are_many(keys: list[str], *, among: list[str]) -> bool:
    """Return whether noted keys are more than one caller, or all that called."""
    return len(keys) >= min(LEAST_KEYS, len(among))


def is_first_of_its_minute(counted: dict[str, int], *, key_id: str, at: float) -> bool:
    """Note that a key is counted; False if it was in this minute, or there is no room.

    `counted` holds the minute of the newest call of each key that was counted, and `at`
    is in seconds since the epoch.
    """
    minute = int(at // 60)
    last = counted.get(key_id)
    # A minute far ahead is of a clock that was set back since.
    if last is not None and minute <= last <= minute + _MINUTES_KEPT:
        return False
    if last is None and len(counted) >= MOST_KEPT:
        return False
    counted[key_id] = minute
    return True


def forget_old(counted: dict[str, int], *, now: float) -> None:
    """Forget keys that were counted long before, or after, a time in seconds."""
    newest = int(now // 60)
    for key_id, minute in [*counted.items()]:
        if not newest - _MINUTES_KEPT <= minute <= newest + _MINUTES_KEPT:
            del counted[key_id]
