"""Run a gateway without accounts, to compare: `python -m benchmarks.null_accounts`.

It has the same core, but checks only the first key, and counts, spends and records
nothing. It is built here, since no setting of the product may turn its checks off.
"""

import tempfile
from pathlib import Path
from typing import Any

from accounts.admission.admission import Admission
from accounts.admission.shared_counts import SharedCounts
from accounts.metering.event import UsageEvent
from inference.gateway import __main__ as gateway
from inference.gateway import server
from inference.gateway.driver.recorder import Recorder, Recording
from inference.prediction import callers, plan
from inference.snapshot.keys import KeyEntry
from inference.snapshot.tables import Tables

_EVENT = UsageEvent(
    id="",
    at=0.0,
    customer_id=0,
    key_id="",
    operation="predict",
    model="",
    version="",
    variant="",
    status=200,
    code="",
    rows=1,
    charged=False,
    compute_us=0,
    total_us=0,
    shap_samples=0,
    request_id="",
)


class NullAdmission(Admission):
    """Admit every call, with no headers about limits."""

    def enter(self, now: float) -> None:
        return None

    def leave(self) -> None:
        return None

    def spend(self, rows: int, now: float, *, explains: bool = False) -> None:
        return None

    def refund(self, rows: int, now: float, reserved: Any = ()) -> None:
        return None

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        return []


class NullRecorder(Recorder):
    """Let answers leave at once, without a usage event."""

    def record(self, event: UsageEvent, waiting: Recording) -> None:
        waiting.recorded()


class OneCaller:
    """Treat every caller as the first one."""

    def __init__(self) -> None:
        self._first: KeyEntry | None = None

    def find(self, tables: Tables, token: bytes | None, now: float) -> KeyEntry:
        if self._first is None:
            self._first = callers.find_caller(tables, token, now)
        return self._first


class _FindsOne:
    """The functions of the module `callers` that the plan calls."""

    find_caller = staticmethod(OneCaller().find)
    require_network = staticmethod(callers.require_network)


def main() -> None:
    counts = Path(tempfile.mkdtemp()) / "counts"

    def own_counts(path: Path, **kwargs: Any) -> SharedCounts:
        # The product's own gateways, which run beside this one, use another file.
        return SharedCounts(counts, **kwargs)

    vars(server).update(
        Admission=NullAdmission,
        BackOffs=lambda counts: None,
        Recorder=NullRecorder,
        SharedCounts=own_counts,
    )
    vars(plan).update(callers=_FindsOne, usage_event=lambda *args, **kwargs: _EVENT)
    gateway.main()


if __name__ == "__main__":
    main()
