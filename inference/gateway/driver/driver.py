"""Carry out the effects of plans, with the parts that all calls share."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.codecs.images import MAX_PIXELS
from inference.dialects.call_headers import Head
from inference.gateway.bounds import BodyRoom
from inference.gateway.driver.call_log import CallLog
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.health import Health
from inference.gateway.driver.image_reader import ImageReader
from inference.gateway.driver.lease_client import LeaseClient
from inference.gateway.driver.recorder import Recorder
from inference.gateway.driver.shadows import Shadows
from inference.gateway.driver.upload_reader import InputFiles
from inference.gateway.metrics.calls import Metrics
from inference.installation.shares import Shares
from inference.prediction.effects import (
    Effect,
    ExplainCall,
    NeedUnits,
    ReadImages,
    ReadUpload,
)
from inference.prediction.plan import PredictionPlan

# Memory for prediction bodies above 64 KiB, and as much again for answers that clients
# have not read. Customers share it.
MAX_LARGE_BYTES = 512 * 1024 * 1024


class GatewayDriver:
    """Hold the plan, and what its effects need, for calls over HTTP and gRPC."""

    def __init__(
        self,
        *,
        plan: PredictionPlan,
        engines: Engines,
        leases: LeaseClient,
        recorder: Recorder,
        metrics: Metrics,
        files: InputFiles,
        body_timeout_s: float,
        calls: CallLog | None = None,
        examples: Path | None = None,
        max_image_pixels: int = MAX_PIXELS,
        max_large_bytes: int = MAX_LARGE_BYTES,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.engines = engines
        self.recorder = recorder
        self.metrics = metrics
        # None if no calls are logged.
        self.calls = calls
        self.shadows = Shadows(engines, recorder.writer, clock=clock, examples=examples)
        metrics.shadows = self.shadows.counts
        self.health = Health(plan.tables, engines, recorder)
        self.body_timeout_s = body_timeout_s
        self.clock = clock
        self.timer = timer
        # Memory for large bodies of predictions, and for answers that are not read.
        self.room = BodyRoom(max_large_bytes)
        self.unread = Shares(max_large_bytes)
        self._images = ImageReader(max_pixels=max_image_pixels)
        self._files = files
        self._leases = leases
        metrics.bounds |= {
            "streams": plan.streams.shares,
            "waiting_for_engines": engines.absences.shares,
            "large_body_bytes": self.room.shares,
            "unread_answer_bytes": self.unread,
            "images": self._images.waiting.shares,
            "uploaded_files": files.turns,
        }

    async def carry_out(self, effect: Effect) -> Any:
        """Carry out an effect that has to wait; raises ApiError or EngineError."""
        match effect:
            case NeedUnits():
                return await self._leases.fetch(effect.request, effect.admission)
            case ExplainCall():
                return await self.engines.explain(effect)
            case ReadImages():
                return await self._images.read(effect)
            case ReadUpload():
                return await self._files.read(effect)
        raise AssertionError(f"{type(effect).__name__} is carried out elsewhere")

    def request_id(self, head: Head) -> str:
        """Return the caller's own id of a request, or a new one."""
        return head.request_id or self.plan.new_request_id()
