"""The operators' port: metrics, and what readiness waits for."""

import time

import msgspec

from inference.gateway.clients import Message, Receive
from inference.gateway.engines import Engines
from inference.gateway.recorder import Recorder
from inference.gateway.relay import Send, respond
from inference.metrics import Metrics, label_text
from inference.prediction import PredictionPlan

_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class OperatorApp:
    def __init__(
        self,
        *,
        plan: PredictionPlan,
        engines: Engines,
        metrics: Metrics,
        recorder: Recorder,
    ) -> None:
        self._plan = plan
        self._engines = engines
        self._metrics = metrics
        self._recorder = recorder

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics":
            body = self._metrics.render(self._gauges()).encode()
            await _answer(scope, send, 200, _METRICS_TYPE, body)
            return
        if scope["path"] in ("/healthz", "/health"):
            await _answer(scope, send, 200, b"text/plain", b"ok")
            return
        if scope["path"] in ("/readyz", "/ready"):
            waiting = self._engines.waiting_for(self._plan.tables)
            detail = {
                "ready": not waiting,
                "waiting_for": waiting,
                "snapshot_sequence": self._plan.tables.snapshot.sequence,
                "engines": {
                    name: msgspec.structs.asdict(report)
                    for name, report in self._engines.reports.items()
                },
            }
            status = 503 if waiting else 200
            body = msgspec.json.encode(detail)
            await _answer(scope, send, status, b"application/json", body)
            return
        await _answer(scope, send, 404, b"text/plain", b"/metrics /readyz /healthz")

    def _gauges(self) -> dict[str, float]:
        snapshot = self._plan.tables.snapshot
        gauges = {
            "ready": float(not self._engines.waiting_for(self._plan.tables)),
            "snapshot_sequence": float(snapshot.sequence),
            "snapshot_age_seconds": time.time() - snapshot.published_at
            if snapshot.sequence
            else 0.0,
            "spool_failing": float(self._recorder.failing),
        }
        for name in self._plan.tables.engines:
            up = name in self._engines.reports
            gauges[f'engine_up{{engine="{label_text(name)}"}}'] = float(up)
        return gauges


async def _answer(
    scope: Message, send: Send, status: int, content_type: bytes, body: bytes
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await respond(scope, send, status, headers, body)
