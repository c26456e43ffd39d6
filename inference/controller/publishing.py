"""Publish keys, customers and models as the snapshot file that gateways read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from accounts.admission.limits import Limits
from accounts.customers import plans
from inference.controller import access_rows, callable_models
from inference.models import Engine, SnapshotChange, SnapshotState
from inference.snapshot import snapshot_file
from inference.snapshot.contents import (
    AccessCustomer,
    CallableModel,
    Delta,
    EngineAddress,
    Snapshot,
)
from inference.snapshot.snapshot_file import SnapshotReplaced, SnapshotWriter
from registry.models import RegisteredModel

Kind = SnapshotChange.Kind
# With more changes at once, a whole snapshot is faster.
_MOST_CHANGES = 2000
# Fewer bytes of deltas than this are no reason to write a new snapshot.
_LEAST_GROWTH = 1024 * 1024

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """The result of publishing."""

    sequence: int
    # False: only a delta was written.
    whole: bool
    models: tuple[CallableModel, ...]


def mark_changed(kind: Kind = Kind.EVERYTHING, names: Iterable[object] = ("",)) -> None:
    """Count a change that gateways must learn of, in the caller's transaction.

    `names` are digests of keys, ids of customers or plans, or names of models; "" means
    every model and the engines.
    """
    with transaction.atomic():
        counted = {"changed": F("changed") + 1}
        if kind in (Kind.EVERYTHING, Kind.MODEL):
            counted["models_changed"] = F("models_changed") + 1
        # Locks the row, so changes are numbered in the order of their commits.
        if not SnapshotState.objects.filter(pk=1).update(**counted):
            SnapshotState.objects.bulk_create(
                [SnapshotState(pk=1)], ignore_conflicts=True
            )
            SnapshotState.objects.filter(pk=1).update(**counted)
        SnapshotChange.objects.bulk_create(
            SnapshotChange(kind=kind, name=str(name)) for name in set(names)
        )


def models_change_count() -> int:
    """Return the number of changes that engines must learn of."""
    count = SnapshotState.objects.filter(pk=1).values_list("models_changed", flat=True)
    return count.first() or 0


def pending_sequence() -> int | None:
    """Return the sequence to publish; None if everything is published."""
    state = SnapshotState.objects.filter(pk=1).first()
    if state is None:
        mark_changed()
        state = SnapshotState.objects.get(pk=1)
    return state.changed if state.changed > state.published else None


class Publisher:
    """Keep the snapshot file equal to the database; each leader has one publisher.

    It begins with a whole snapshot, then appends deltas of marked changes. The change
    count is read first: a change that commits meanwhile has a higher number and so
    leads to another delta. If the file or the row is not as this process left it, it
    begins again.

    A long file is replaced. Writing a new one takes a second or more, so a thread does
    that, and the old file gets deltas until then.
    """

    def __init__(self, path: Path, *, renew_after_bytes: int | None = None) -> None:
        """Replace the file after so many bytes of deltas; None: the snapshot's size."""
        self._path = path
        self._renew_after_bytes = renew_after_bytes
        self._writer: SnapshotWriter | None = None
        # With more bytes of deltas, the file is replaced.
        self._most_bytes = 0
        # The file that a thread writes, and the deltas since it began.
        self._renewed: Future[SnapshotWriter] | None = None
        self._meanwhile: list[Delta] = []
        self._sequence = 0
        # What gateways have; only differences from it are published.
        self._models: dict[str, CallableModel] = {}
        self._limits: dict[int, Limits] = {}

    def publish(self, *, now: datetime) -> Published:
        """Write all changes so far, and set `published` to their count."""
        try:
            return self._append(now=now) or self._begin(now=now)
        except BaseException:
            # The file may end with half a delta, without changes that were read.
            self.close()
            raise

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._renewed is not None:
            self._renewed.add_done_callback(_discard)
            self._renewed = None

    def _append(self, *, now: datetime) -> Published | None:
        """Append a delta; return None if a whole snapshot is necessary."""
        sequence = _change_count()
        changes = list(SnapshotChange.objects.order_by("pk")[: _MOST_CHANGES + 1])
        if (
            self._writer is None
            or not self._sequence
            or len(changes) > _MOST_CHANGES
            or any(change.kind == Kind.EVERYTHING for change in changes)
        ):
            return None
        delta = self._delta(changes, sequence=sequence, now=now)
        try:
            self._writer.append(delta)
        except SnapshotReplaced:
            return None
        self._renew(self._writer, delta, now=now)
        self._note(changes, sequence=sequence, now=now)
        return Published(sequence, whole=False, models=tuple(self._models.values()))

    def _begin(self, *, now: datetime) -> Published:
        """Begin a new file with a whole snapshot."""
        self.close()
        sequence = _change_count()
        changes = list(SnapshotChange.objects.order_by("-pk")[:1])
        snapshot = assemble(sequence=sequence, now=now)
        self._use(SnapshotWriter(self._path, snapshot))
        self._models = {model.name: model for model in snapshot.models}
        self._limits = {entry.customer_id: entry.limits for entry in snapshot.customers}
        self._note(changes, sequence=sequence, now=now)
        return Published(sequence, whole=True, models=snapshot.models)

    def _renew(self, writer: SnapshotWriter, delta: Delta, *, now: datetime) -> None:
        """Start writing a shorter file if `writer` is long, or use a finished one."""
        if self._renewed is None:
            if writer.delta_bytes > self._most_bytes:
                self._renewed, self._meanwhile = self._begin_beside(delta, now=now), []
            return
        self._meanwhile.append(delta)
        if not self._renewed.done():
            return
        renewed, self._renewed = self._renewed, None
        try:
            self._use(renewed.result(), self._meanwhile)
        except Exception:
            # The thread's boundary: changes still go into the existing file.
            logger.exception("snapshot_not_renewed")
            self._most_bytes = 2 * writer.delta_bytes
        else:
            writer.close()

    def _begin_beside(self, delta: Delta, *, now: datetime) -> "Future[SnapshotWriter]":
        """Write a whole snapshot as of `delta` in a thread."""
        # Later deltas are compared with this state, not with the database's later one.
        models, limits = dict(self._models), dict(self._limits)

        def write() -> SnapshotWriter:
            try:
                engines = list(Engine.objects.all())
                sequence = delta.sequence
                whole = _assemble(models, limits, engines, sequence=sequence, now=now)
                return SnapshotWriter(self._path, whole)
            finally:
                connection.close()

        executor = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        begun = executor.submit(write)
        executor.shutdown(wait=False)
        return begun

    def _use(self, writer: SnapshotWriter, later: Sequence[Delta] = ()) -> None:
        writer.put_in_place(later)
        self._writer = writer
        self._most_bytes = self._renew_after_bytes or max(
            writer.whole_bytes, _LEAST_GROWTH
        )

    def _note(
        self, changes: list[SnapshotChange], *, sequence: int, now: datetime
    ) -> None:
        """Store in the database what was published, unless another controller has."""
        state = SnapshotState.objects.filter(pk=1, published__lte=sequence)
        if self._sequence:
            state = state.filter(published=self._sequence)
        self._sequence = sequence
        if not state.update(published=sequence, published_at=now):
            # Another controller leads, and one of the two files replaced the other.
            self._sequence = 0
            mark_changed()
        elif changes:
            SnapshotChange.objects.filter(pk__lte=changes[-1].pk).delete()

    def _delta(
        self, changes: list[SnapshotChange], *, sequence: int, now: datetime
    ) -> Delta:
        """Read what changed, and compare it with what gateways have."""
        names: dict[str, set[str]] = defaultdict(set)
        for change in changes:
            names[change.kind].add(change.name)
        customers, gone_customers, with_keys = self._changed_customers(names)
        keys = access_rows.keys(
            names[Kind.KEY], customer_ids=with_keys, limits=self._limits, now=now
        )
        gone_keys = tuple(digest for digest, key in keys.items() if key is None)
        delta = Delta(
            sequence=sequence,
            base=self._sequence,
            published_at=now.timestamp(),
            customers=tuple(customers),
            gone_customers=tuple(gone_customers),
            keys=tuple(key for key in keys.values() if key is not None),
            gone_keys=gone_keys,
            ended_keys=tuple(access_rows.ended_keys(gone_keys, now=now)),
        )
        if Kind.MODEL not in names:
            return delta
        models, gone_models = self._changed_models(names[Kind.MODEL])
        return msgspec.structs.replace(
            delta,
            models=tuple(models),
            gone_models=tuple(gone_models),
            engines=_addresses(list(Engine.objects.all())),
            site_default_model=_site_default(),
        )

    def _changed_customers(
        self, names: Mapping[str, set[str]]
    ) -> tuple[list[AccessCustomer], list[int], list[int]]:
        """Return changed customers, ids of deleted ones, and ids whose keys change."""
        found = access_rows.customers(
            [int(name) for name in names[Kind.CUSTOMER]],
            plan_ids=[int(name) for name in names[Kind.PLAN]],
        )
        changed, gone, with_keys = [], [], []
        for customer_id, limits in found.items():
            before = self._limits.get(customer_id)
            if limits == before:
                continue
            if limits is None:
                del self._limits[customer_id]
                gone.append(customer_id)
            else:
                self._limits[customer_id] = limits
                changed.append(AccessCustomer(customer_id=customer_id, limits=limits))
            if (
                limits is None
                or before is None
                or plans.main_unit(limits) != plans.main_unit(before)
            ):
                with_keys.append(customer_id)
        return changed, gone, with_keys

    def _changed_models(self, names: set[str]) -> tuple[list[CallableModel], list[str]]:
        every = "" in names
        described = callable_models.describe(names=None if every else names)
        changed = [
            model
            for name, model in described.items()
            if self._models.get(name) != model
        ]
        gone = [
            name
            for name in (self._models if every else names)
            if name in self._models and name not in described
        ]
        self._models |= described
        for name in gone:
            del self._models[name]
        return changed, gone


def publish(*, now: datetime) -> Snapshot:
    """Publish a whole snapshot once, and return it."""
    publisher = Publisher(settings.HOME.snapshot)
    publisher.publish(now=now)
    publisher.close()
    return snapshot_file.read(settings.HOME.snapshot)


def assemble(*, sequence: int, now: datetime) -> Snapshot:
    """Assemble a whole snapshot in a fixed number of queries."""
    engines = list(Engine.objects.all())
    models = callable_models.describe()
    limits = access_rows.every_customer()
    return _assemble(models, limits, engines, sequence=sequence, now=now)


def _assemble(
    models: Mapping[str, CallableModel],
    limits: Mapping[int, Limits],
    engines: list[Engine],
    *,
    sequence: int,
    now: datetime,
) -> Snapshot:
    return Snapshot(
        sequence=sequence,
        published_at=now.timestamp(),
        models=tuple(models.values()),
        keys=tuple(access_rows.every_key(limits, now=now)),
        ended_keys=tuple(access_rows.newest_ended_keys(now=now)),
        customers=tuple(
            AccessCustomer(customer_id=customer_id, limits=own)
            for customer_id, own in limits.items()
        ),
        engines=_addresses(engines),
        site_default_model=_site_default(),
    )


def _discard(renewed: "Future[SnapshotWriter]") -> None:
    if renewed.exception() is None:
        renewed.result().discard()


def _addresses(engines: list[Engine]) -> tuple[EngineAddress, ...]:
    return tuple(
        EngineAddress(name=engine.name, address=engine.address) for engine in engines
    )


def _site_default() -> str | None:
    default = RegisteredModel.objects.filter(site_default=True)
    return default.values_list("name", flat=True).first()


def _change_count() -> int:
    return SnapshotState.objects.values_list("changed", flat=True).get(pk=1)
