"""Renew a job's claim while its worker is busy with a chunk."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from django.db import DatabaseError, connection
from django.utils import timezone

from inference.jobs import life_cycle as jobs

_RENEW_S = jobs.CLAIM_S / 3
# A worker without progress for this long hangs: another may claim the job.
_PATIENCE_S = 300.0

logger = structlog.get_logger(__name__)


class ClaimKeeper:
    """Renew a claim from a thread as long as the work makes progress."""

    def __init__(
        self,
        claim: jobs.Claim,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._claim = claim
        self._monotonic = monotonic
        self._done = threading.Event()
        self._progress_at = monotonic()
        self._thread = threading.Thread(
            target=self._run, name=f"claim-{claim.job_id}", daemon=True
        )

    def note(self) -> None:
        """Record progress."""
        self._progress_at = self._monotonic()

    def beat(self) -> bool:
        """Renew the claim once; return False if it is lost or the work hangs."""
        if self._monotonic() - self._progress_at > _PATIENCE_S:
            logger.error("job_hangs", job=self._claim.job_id)
            return False
        try:
            return jobs.renew(self._claim, now=timezone.now())
        except DatabaseError as error:
            # The next try may be in time; if not, the fencing token protects the job.
            logger.warning(
                "job_claim_not_renewed", job=self._claim.job_id, reason=error
            )
            connection.close()
            return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._done.wait(_RENEW_S):
                if not self.beat():
                    return
        finally:
            # This thread's own connection, which nothing else closes.
            connection.close()
