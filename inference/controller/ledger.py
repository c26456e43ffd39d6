"""Move usage events from the spool to the database, each exactly once.

A segment is one spool file. Its events and the offset up to which they were read are
committed together (`accounts/usage/recording.py`), so after a crash between any two
steps the next round continues at the last committed offset.
"""

import functools
import itertools
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from accounts.metering import calls, spool
from accounts.metering.comparison import ComparedCalls
from accounts.metering.event import UsageEvent
from accounts.models import Lease, SpoolSegment
from accounts.quotas import leases
from accounts.usage import recording
from inference.controller.rollouts import comparing, feeding

# Keeps each transaction well under 50 ms.
_EVENTS_PER_TRANSACTION = 2000
KEEP_SEGMENTS = timedelta(days=7)
# A process takes leases before it writes its first event. A holder without any segment
# counts as dead only once its lease is this old.
_HOLDER_WITHOUT_SEGMENT = timedelta(minutes=10)

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of one round."""

    events: int = 0
    completed: int = 0
    # Whether all events were read.
    caught_up: bool = True


def ingest(folder: Path, *, now: datetime, budget_s: float = 0.3) -> Ingested:
    """Read events that were appended since the last round, for about `budget_s`."""
    deadline = time.monotonic() + budget_s
    segments = {segment.name: segment for segment in SpoolSegment.objects.all()}
    events = completed = 0
    caught_up = True
    for path in sorted(folder.glob(f"*{spool.SUFFIX}")):
        segment = segments.get(path.name)
        if segment is not None and segment.completed_at is not None:
            continue
        offset = segment.ingested_bytes if segment is not None else 0
        # Checked before reading: a writer that is dead now appends nothing later.
        finished = spool.is_finished(path, now=now.timestamp())
        end = path.stat().st_size
        torn = False
        while offset < end and not torn and time.monotonic() < deadline:
            batch, compared, next_offset = _read_batch(path, offset)
            torn = not batch and not compared
            if not torn and recording.record(
                path.name,
                batch,
                next_offset,
                start_bytes=offset,
                also=functools.partial(_feed, compared),
            ):
                events += len(batch)
            offset = next_offset
        if offset < end and not torn:
            caught_up = False
        elif finished:
            _complete(path.name, offset, lost_bytes=end - offset, now=now)
            completed += 1
    return Ingested(events=events, completed=completed, caught_up=caught_up)


def _feed(compared: list[ComparedCalls], events: list[UsageEvent]) -> None:
    # The rollouts of both are locked at once, in the order of all who lock them.
    feeding.feed(events, also_lock={each.model for each in compared})
    comparing.count(compared)


def _read_batch(
    path: Path, offset: int
) -> tuple[list[UsageEvent], list[ComparedCalls], int]:
    batch: list[UsageEvent] = []
    compared: list[ComparedCalls] = []
    pairs = spool.read(path, offset)
    for found, next_offset in itertools.islice(pairs, _EVENTS_PER_TRANSACTION):
        if isinstance(found, UsageEvent):
            batch.append(found)
        else:
            compared.append(found)
        offset = next_offset
    return batch, compared, offset


def _complete(name: str, offset: int, *, lost_bytes: int, now: datetime) -> None:
    SpoolSegment.objects.update_or_create(
        name=name, defaults={"ingested_bytes": offset, "completed_at": now}
    )
    if lost_bytes:
        # The writer was killed in the middle of an event; its answer was never sent.
        logger.warning("spool_segment_torn", segment=name, lost_bytes=lost_bytes)


def settle_dead_holders(folder: Path, *, now: datetime) -> list[str]:
    """Give unspent units of dead processes back to quotas; return the processes' ids.

    A holder is dead if all its segments are complete and fully read. Settling marks the
    leases, so a second time finds nothing to do.
    """
    settled = []
    unsettled = Lease.objects.filter(settled_at=None)
    for holder in unsettled.values_list("holder", flat=True).distinct().order_by():
        if not _is_dead(holder, folder, now=now):
            continue
        leases.settle(holder)
        logger.info("leases_settled", holder=holder)
        settled.append(holder)
    return settled


def _is_dead(holder: str, folder: Path, *, now: datetime) -> bool:
    names = {
        path.name
        for path in folder.glob(f"*{spool.SUFFIX}")
        if spool.boot_id_of(path) == holder
    }
    segments = SpoolSegment.objects.filter(name__startswith=f"{holder}-")
    complete = set(segments.exclude(completed_at=None).values_list("name", flat=True))
    if names or complete:
        return names <= complete
    return not Lease.objects.filter(
        holder=holder, renewed_at__gt=now - _HOLDER_WITHOUT_SEGMENT
    ).exists()


def delete_old_segments(
    folder: Path, *, now: datetime, max_bytes: int = spool.DEFAULT_TOTAL_BYTES
) -> int:
    """Delete raw segments a week after they were read; usage stays.

    If all segments together exceed half of `max_bytes`, the oldest that are read are
    deleted earlier, because predictions stop once the spool reaches `max_bytes`. The
    file is deleted before its row: a file without a row would be counted again.
    """
    _make_room(folder, max_bytes // 2)
    old = SpoolSegment.objects.filter(completed_at__lt=now - KEEP_SEGMENTS)
    # The rows of holders with unsettled leases are kept to find that they are dead.
    holders = set(
        Lease.objects.filter(settled_at=None).values_list("holder", flat=True)
    )
    deleted = 0
    for segment in old:
        calls.delete(folder / segment.name)
        if spool.boot_id_of(folder / segment.name) in holders:
            continue
        segment.delete()
        deleted += 1
    calls.delete_orphans(folder)
    return deleted


def _make_room(folder: Path, max_bytes: int) -> None:
    """Delete segments that are read, oldest first, until `max_bytes` are left."""
    sizes = {path.name: path.stat().st_size for path in folder.glob(f"*{spool.SUFFIX}")}
    excess = sum(sizes.values()) - max_bytes
    if excess <= 0:
        return
    read = SpoolSegment.objects.filter(name__in=sizes).exclude(completed_at=None)
    for name in read.order_by("completed_at", "pk").values_list("name", flat=True):
        calls.delete(folder / name)
        logger.info("spool_segment_deleted_early", segment=name)
        excess -= sizes[name]
        if excess <= 0:
            return
