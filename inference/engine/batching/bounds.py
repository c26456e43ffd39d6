"""Combine a version's batch settings with the limits of the engine."""

from typing import NamedTuple

from inference.engine.batching.batcher import BatchSettings
from inference.engine.batching.queue import QueueLimits
from inference.engine.settings import EngineSettings
from inference.engine.wire.messages import Batching


class LaneLimits(NamedTuple):
    limits: QueueLimits
    max_wait_s: float


def of_engine(settings: EngineSettings) -> BatchSettings:
    own = of_version(settings, Batching())
    return BatchSettings(
        limits=own.limits,
        max_rows=settings.max_engine_queue_rows,
        max_bytes=settings.max_engine_queue_bytes,
        max_queue_s=settings.max_queue_ms / 1000,
        max_wait_s=own.max_wait_s,
        inline_s=settings.inline_ms / 1000,
    )


def of_version(settings: EngineSettings, batching: Batching) -> LaneLimits:
    """Return the version's own settings, capped by the engine's limits."""
    max_wait_ms = settings.max_wait_ms
    if batching.max_wait_ms is not None:
        max_wait_ms = min(max(batching.max_wait_ms, 0.0), settings.max_wait_limit_ms)
    return LaneLimits(
        QueueLimits(
            max_rows=settings.max_queue_rows,
            max_bytes=settings.max_queue_bytes,
            max_batch_rows=_least(settings.max_batch_rows, batching.max_batch_rows),
            max_batch_bytes=_least(settings.max_batch_bytes, batching.max_batch_bytes),
        ),
        max_wait_ms / 1000,
    )


def _least(bound: int, wish: int | None) -> int:
    return bound if wish is None else min(max(wish, 1), bound)
