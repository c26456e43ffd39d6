"""Set how many examples property tests try; `make torture` multiplies them."""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("MODELYARD_TORTURE", "1"))


def examples(usual: int) -> int:
    """Return the examples of a test that needs fewer or more than 100."""
    return usual * FACTOR


def load_profile() -> None:
    """Set the defaults of all property tests.

    There is no deadline: an example that waits for a processor on a busy machine has
    not failed. Speed has tests of its own.
    """
    settings.register_profile(
        "modelyard",
        max_examples=examples(100),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("modelyard")
