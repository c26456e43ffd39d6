"""How hard property tests try: as usual, or harder by a factor (`make torture`)."""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("MODELYARD_TORTURE", "1"))


def examples(usual: int) -> int:
    """Number of examples of a test that needs fewer or more than the 100 of others."""
    return usual * FACTOR


def load_profile() -> None:
    """Set what holds for tests that name no number.

    Without a deadline: on a machine that does other things, too, an example that waits
    for a processor is no failure. What has to be quick says so in a test of its own.
    """
    settings.register_profile(
        "modelyard",
        max_examples=examples(100),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("modelyard")
