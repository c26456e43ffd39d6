"""Say when a version died so often that it may not start again: one rule for all."""

from collections.abc import Iterable

# So many deaths within so long quarantine a version.
MOST_DEATHS = 2
WITHIN_S = 600.0


def is_due(times: Iterable[float]) -> bool:
    """Return whether any `MOST_DEATHS` deaths follow each other within the time."""
    ordered = sorted(times)
    return any(
        later - earlier < WITHIN_S
        for earlier, later in zip(ordered, ordered[MOST_DEATHS - 1 :], strict=False)
    )
