"""Report what this process counts, from a thread of its own, until it ends."""

import threading
from collections.abc import Callable

import structlog
from django.conf import settings

from config.monitoring import facts, task_counts
from inference.metrics import own_reports
from inference.metrics.own_reports import ReportFile

# Those that start Django; host and gateways report by themselves.
PROCESSES = ("internal", "site", "controller", "worker", "beat")
_FACTS_S = 15.0

logger = structlog.get_logger(__name__)


def start(process: str) -> None:
    """Start the reports of the process with this name, if it has any."""
    if process not in PROCESSES:
        return
    own = ReportFile(settings.HOME.own_reports, process)
    _repeat("own-report", own_reports.INTERVAL_S, own.write)
    if process == "worker":
        task_counts.connect()
    if process == "controller":
        _repeat("facts", _FACTS_S, facts.write)


def _repeat(name: str, seconds: float, action: Callable[[], None]) -> None:
    stop = threading.Event()

    def repeat() -> None:
        while True:
            try:
                action()
            except Exception:
                # The thread's boundary. Gateways see the report grow old.
                logger.exception("report_failed", outage=f"report {name}", report=name)
            else:
                logger.info("report_written", outage_over=f"report {name}", report=name)
            stop.wait(seconds)

    threading.Thread(target=repeat, name=name, daemon=True).start()
