"""Let versions that failed to load wait: a minute, then longer, each for itself."""

from dataclasses import dataclass
from datetime import datetime

from inference.engine.wire.messages import VersionKey

FIRST_WAIT_S = 60.0
LONGEST_WAIT_S = 3600.0


@dataclass(slots=True)
class _Tried:
    form: str
    # When people asked for it to be loaded again; None: never.
    asked_at: datetime | None
    at_s: float
    times: int


class Retries:
    """When each version was tried last. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._tried: dict[VersionKey, _Tried] = {}

    def tried(
        self, key: VersionKey, form: str, asked_at: datetime | None, *, now_s: float
    ) -> None:
        """Count a try; several engines that try at the same time count as one."""
        before = self._tried.get(key)
        times = 0
        if before is not None and (before.form, before.asked_at) == (form, asked_at):
            times = before.times - (before.at_s == now_s)
        self._tried[key] = _Tried(form, asked_at, now_s, times + 1)

    def is_due(
        self,
        key: VersionKey,
        form: str,
        asked_at: datetime | None,
        *,
        refused: bool,
        now_s: float,
    ) -> bool:
        """Return whether to try a failed version again.

        At once if it changed or people asked for it; never if it was refused and did
        not change; else in time.
        """
        last = self._tried.get(key)
        if last is None:
            # It failed in a process that loaded it by itself, just now.
            self._tried[key] = _Tried(form, asked_at, now_s, 1)
            return False
        if (last.form, last.asked_at) != (form, asked_at):
            return True
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(last.times - 1, 16), LONGEST_WAIT_S)
        return not refused and now_s - last.at_s >= wait_s

    def succeeded(self, key: VersionKey) -> None:
        self._tried.pop(key, None)
