"""Close a key that keeps calling while it is refused, for waits that grow.

Refusals are counted per key and window of the limit that refuses. If one window has
more refusals than that limit admits, and more than `TOLERATED`, the key is closed: its
calls are refused without a look until the window is over, and one second more. If the
key calls on while it is closed, the next wait is two seconds more, then four, up to
`LONGEST_S`. If its calls wait for the end that they were told, or stay away for a
minute after it, the next wait is the first again.

Four rules keep this fair:

- The end of a wait never moves. A client that waits for it finds the key open, however
  often others call with the same key meanwhile.
- A client that obeys is refused once in a window. So as many clients may share a key as
  its limit admits calls, or `TOLERATED`, and it is not closed.
- Many calls at once may be first calls of clients that then wait. So waits grow only
  for calls that come when every client of the key was told to wait. Calls that a limit
  told to come back at the end of its window, before the key was closed, do not count.
- Only the key is closed. Other keys of the customer get more room.

The state is in cells of the counts that the gateways of a machine share: all of them
close a key at the same time, and its size is bounded. Changed limits forget it.
"""

import math
from typing import Protocol

from accounts.admission.limits import Limits, ReachedLimit
from accounts.admission.refusal import LimitRefusal
from accounts.admission.shared_counts import SharedCounts, key_of

# This many refusals in one window never close a key.
TOLERATED = 50
LONGEST_S = 300
# This long after its last wait, the next wait of a key is the shortest again.
FORGIVEN_S = 60
# A quota may refuse for weeks; its refusals are counted by the minute.
_LONGEST_WINDOW_S = 60
_MAX_LEVEL = math.ceil(math.log2(LONGEST_S)) + 1
# Added to the level of a key that got more calls than allowed while it was closed.
_CALLED_EARLY = 16
# No wait is longer than this. If one seems to be, the clock was wrong when it began.
_FARTHEST_S = _LONGEST_WINDOW_S + LONGEST_S
_MAX_COUNTED = 10_000
# Calls soon after a key was closed belong to the crowd that closed it: until the window
# ends, but for this long at least and at most.
_CROWD_S = (0.25, 1.0)
# Clients that wait may come back until this long after the end of the wait, as
# `Retry-After` is in whole seconds, and calls take time.
_RETURN_S = 1.25


class HasLimits(Protocol):
    @property
    def limits(self) -> Limits: ...


class BackOffs:
    """Make the back-off of each key, and count the keys this process has closed."""

    def __init__(self, counts: SharedCounts) -> None:
        self.counts = counts
        self._closed: dict[str, float] = {}

    def of_key(self, key_id: str, admission: HasLimits, own: object) -> "BackOff":
        """Make a key's back-off; `own` holds the key's own limits, if it has any."""
        return BackOff(self, key_id, admission, own)

    def note_closed(self, key_id: str, until: float, now: float) -> None:
        if len(self._closed) >= _MAX_COUNTED:
            self._closed = {k: end for k, end in self._closed.items() if end > now}
        if len(self._closed) < _MAX_COUNTED:
            self._closed[key_id] = until

    def closed_now(self, now: float) -> int:
        """Count the keys that this process closed and that are still closed."""
        return sum(now < end <= now + _FARTHEST_S for end in self._closed.values())


class BackOff:
    """The refusals and waits of one key."""

    __slots__ = (
        "_admission",
        "_back_offs",
        "_closed_key",
        "_counts",
        "_early_keys",
        "_key_id",
        "_limits",
        "_own",
        "_refused_keys",
        "cells",
    )

    def __init__(
        self, back_offs: BackOffs, key_id: str, admission: HasLimits, own: object
    ) -> None:
        self._back_offs = back_offs
        self._counts = back_offs.counts
        # Cell `CLOSED_UNTIL` says whether any key at all is closed.
        self.cells = back_offs.counts.cells
        self._key_id = key_id
        self._admission = admission
        self._own = own
        # The limits that the state belongs to; other limits start without it.
        self._limits: Limits | None = None
        self._closed_key = 0
        self._early_keys = (0, 0)
        self._refused_keys: dict[str, int] = {}

    def refusal(self, now: float) -> LimitRefusal | None:
        """Refuse a call if the key is closed now.

        Takes no lock if the next wait will be longer anyway.
        """
        self._take_names()
        at = self._counts.look(self._closed_key)
        if not at:
            return None
        told, until, level = self._counts.state(at)
        if not now < until / 1000 <= now + _FARTHEST_S:
            return None
        if level < _CALLED_EARLY:
            self._note_early(now)
        ends = max(until / 1000, told)
        wait_s = ends - now
        return LimitRefusal(
            kind="rate",
            retry_after_s=wait_s,
            message=(
                "This API key kept calling while it was refused, so its calls are"
                f" refused unseen for another {math.ceil(wait_s)} s. Wait as long as"
                " Retry-After says; waits grow while you do not."
            ),
            limit=ReachedLimit(
                name="backoff",
                scope="key",
                source="site",
                unit="requests",
                maximum=0,
                used=0,
                resets_at=math.ceil(ends),
            ),
        )

    def note(self, refusal: LimitRefusal, now: float) -> None:
        """Count a refusal by a limit, and close the key if there were too many."""
        limit = refusal.limit
        if refusal.kind == "concurrency" or (limit.used or 0) < limit.maximum:
            # Nobody knows when another call ends, and a smaller call may fit in.
            return
        self._take_names()
        window_s = min(limit.window_s, _LONGEST_WINDOW_S)
        starts = int(now // window_s) * window_s
        key = self._refused_keys.get(limit.name)
        if key is None:
            key = key_of(self._closed_key, limit.name)
            self._refused_keys[limit.name] = key
        tolerated = TOLERATED
        if refusal.kind == "rate":
            tolerated = max(TOLERATED, limit.maximum)
        counts = self._counts
        counts.lock()
        try:
            at = counts.find(key, starts, starts + window_s)
            self.cells[at] += 1
            if self.cells[at] > tolerated:
                self.cells[at] = 0
                self._close(refusal, now, tolerated)
        finally:
            counts.unlock()

    def _close(self, refusal: LimitRefusal, now: float, tolerated: int) -> None:
        """Close the key, for longer than last time if it did not wait for its end."""
        at = self._counts.place(self._closed_key)
        told, last, level = self._counts.state(at)
        if now < last / 1000 <= now + _FARTHEST_S:
            # A call that was let in before has closed it.
            return
        lately = -_FARTHEST_S < now - last / 1000 <= FORGIVEN_S
        if not (lately and (now < told or level >= _CALLED_EARLY)):
            level = 0
        level = min(level % _CALLED_EARLY + 1, _MAX_LEVEL)
        opens = refusal.limit.resets_at
        # A rate opens when its window ends. A quota may open at any time, as units may
        # come back; callers are told its reset, when it is sure to open.
        base = now if refusal.kind == "quota" else min(opens, now + _LONGEST_WINDOW_S)
        until = base + min(2 ** (level - 1), LONGEST_S)
        told = opens if refusal.kind == "quota" else 0
        ends = math.ceil(until) + FORGIVEN_S
        self._counts.set_state(at, (told, math.ceil(until * 1000), level), ends=ends)
        self._allow_early(last / 1000, now, base, tolerated, ends)
        self._counts.note_closed(math.ceil(until), farthest=int(now) + _FARTHEST_S)
        self._back_offs.note_closed(self._key_id, until, now)

    # Calls before the end that they were told: from when they count, how many are left

    def _allow_early(
        self, opened: float, now: float, base: float, tolerated: int, ends: int
    ) -> None:
        """Set how many early calls do not make the next wait longer; needs the lock.

        No call counts while clients come back that waited until the key `opened`. Later
        in the window some clients begin. After the window come the calls that the limit
        told to, before the key was closed.
        """
        shortest, longest = _CROWD_S
        crowd_is_over = now + min(max(base - now, shortest), longest)
        if opened <= now:
            crowd_is_over = max(crowd_is_over, opened + _RETURN_S)
        allowed = (
            (max(base, crowd_is_over), tolerated + 1),
            (crowd_is_over, TOLERATED),
        )
        for key, (since, calls) in zip(self._early_keys, allowed, strict=True):
            at = self._counts.place(key)
            state = (math.ceil(since * 1000), calls, 0)
            self._counts.set_state(at, state, ends=ends)

    def _note_early(self, now: float) -> None:
        """Count a call of a closed key, and mark the key if there were too many."""
        counts = self._counts
        for key in self._early_keys:
            at = counts.look(key)
            if at and counts.state(at)[0] <= now * 1000:
                break
        else:
            return
        counts.lock()
        try:
            at = counts.place(key)
            since, left, _ = counts.state(at)
            counts.set_state(
                at, (since, max(0, left - 1), 0), ends=math.ceil(now) + LONGEST_S
            )
            if left == 0:
                at = counts.place(self._closed_key)
                told, until, level = counts.state(at)
                ends = math.ceil(until / 1000) + FORGIVEN_S
                counts.set_state(at, (told, until, level | _CALLED_EARLY), ends=ends)
        finally:
            counts.unlock()

    def _take_names(self) -> None:
        limits = self._admission.limits
        if limits is not self._limits:
            self._limits = limits
            self._closed_key = key_of(self._key_id, "closed", limits, self._own)
            self._early_keys = (
                key_of(self._closed_key, "after the window"),
                key_of(self._closed_key, "in the window"),
            )
            self._refused_keys = {}
