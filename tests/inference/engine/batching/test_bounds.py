from inference.engine.batching import bounds
from inference.engine.settings import EngineSettings
from inference.engine.wire.messages import Batching

SETTINGS = EngineSettings(
    max_batch_rows=100, max_batch_bytes=1000, max_wait_ms=2, max_wait_limit_ms=50
)


def test_a_version_that_sets_nothing_has_the_engines_own():
    limits, max_wait_s = bounds.of_version(SETTINGS, Batching())

    assert (limits.max_batch_rows, limits.max_batch_bytes) == (100, 1000)
    assert max_wait_s == 0.002
    assert bounds.of_engine(SETTINGS).limits == limits


def test_a_version_sets_its_own_within_the_engines_bounds():
    limits, max_wait_s = bounds.of_version(
        SETTINGS, Batching(max_wait_ms=20, max_batch_rows=8, max_batch_bytes=5000)
    )

    assert (limits.max_batch_rows, limits.max_batch_bytes) == (8, 1000)
    assert max_wait_s == 0.02


def test_nonsense_cannot_stop_batches():
    limits, max_wait_s = bounds.of_version(
        SETTINGS, Batching(max_wait_ms=1e9, max_batch_rows=0, max_batch_bytes=-1)
    )

    assert (limits.max_batch_rows, limits.max_batch_bytes) == (1, 1)
    assert max_wait_s == 0.05
    assert bounds.of_version(SETTINGS, Batching(max_wait_ms=-1)).max_wait_s == 0
