"""Predictions kept for callers who send the same input again. Pure.

Kept is what the model gave, not the answer made of it: options that only shape the
answer, such as `top_k`, need no entry of their own. The key is made of the decoded
tensors, so however a body writes its rows, the same rows are the same input.

Where there is no room, the customer who holds most loses what it used least recently:
so one that asks for ever new inputs pushes out its own predictions.
"""

import hashlib
import heapq
import sys
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np

from inference.engine.wire.tensors import Array, Prediction, Tensor

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024
# What an entry takes beside its arrays: key, structs, table.
_ENTRY_BYTES = 600
# Greater ones would push everything else out.
_GREATEST_SHARE = 8

_value_encoder = msgspec.msgpack.Encoder(order="deterministic")

# Version with its artifact, customer (0: everyone) and digest of the input.
Key = tuple[object, int, bytes]


class CacheCounts(msgspec.Struct):
    """What a cache did since the start of its process, and what it holds."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    bytes: int = 0


class _Holding(msgspec.Struct, gc=False):
    """What one customer stored, least recently used first."""

    customer_id: int
    keys: OrderedDict[Key, None]
    # Bytes, and as many for each entry as there are for one of a full cache.
    weight: int = 0


class _Entry(msgspec.Struct, gc=False):
    prediction: Prediction
    stored_s: float
    bytes: int
    holding: _Holding


class PredictionCache:
    """Keeps the latest used predictions, within bounds of entries and bytes.

    Customers share it; a prediction counts for the customer who stored it. Times are
    monotonic seconds passed in by the caller.
    """

    def __init__(
        self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entry_weight = max_bytes // max(max_entries, 1)
        self._entries: dict[Key, _Entry] = {}
        self._holdings: dict[int, _Holding] = {}
        # Greatest first, as (-weight, customer): each weight that a holding has had
        # since it was put in order, among them that which it has now.
        self._by_weight: list[tuple[int, int]] = []
        self.counts = CacheCounts()

    def get(self, key: Key, *, now_s: float, ttl_s: float) -> Prediction | None:
        """Find what was stored less than `ttl_s` ago."""
        entry = self._entries.get(key)
        if entry is None or now_s - entry.stored_s >= ttl_s:
            self.counts.misses += 1
            if entry is not None:
                self._remove(key)
            return None
        self.counts.hits += 1
        entry.holding.keys.move_to_end(key)
        return entry.prediction

    def put(
        self, key: Key, prediction: Prediction, *, customer_id: int, now_s: float
    ) -> None:
        """Store for a customer; others of whoever holds most leave for want of room."""
        if key in self._entries:
            self._remove(key)
        size = _ENTRY_BYTES + sum(_bytes(t.data) for t in prediction.tensors)
        if size > self._max_bytes // _GREATEST_SHARE or self._max_entries < 1:
            return
        counts = self.counts
        while self._entries and (
            len(self._entries) >= self._max_entries
            or counts.bytes + size > self._max_bytes
        ):
            self._remove(next(iter(self._greatest().keys)))
            counts.evictions += 1
        kept = Prediction(
            tuple(Tensor(t.name, _copy(t.data)) for t in prediction.tensors),
            0,
            0,
            prediction.batch_rows,
        )
        holding = self._holdings.get(customer_id)
        if holding is None:
            holding = _Holding(customer_id, OrderedDict())
            self._holdings[customer_id] = holding
        holding.keys[key] = None
        self._entries[key] = _Entry(kept, now_s, size, holding)
        self._count(holding, 1, size)

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key)
        del entry.holding.keys[key]
        self._count(entry.holding, -1, -entry.bytes)

    def _count(self, holding: _Holding, entries: int, size: int) -> None:
        self.counts.bytes += size
        self.counts.entries = len(self._entries)
        holding.weight += size + entries * self._entry_weight
        if not holding.keys:
            del self._holdings[holding.customer_id]
            return
        if len(self._by_weight) > 4 * len(self._holdings) + 64:
            self._by_weight = [
                (-one.weight, one.customer_id) for one in self._holdings.values()
            ]
            heapq.heapify(self._by_weight)
        else:
            heapq.heappush(self._by_weight, (-holding.weight, holding.customer_id))

    def _greatest(self) -> _Holding:
        """Return the holding of whoever has most."""
        while True:
            weight, customer_id = self._by_weight[0]
            holding = self._holdings.get(customer_id)
            if holding is not None and holding.weight == -weight:
                return holding
            heapq.heappop(self._by_weight)  # it was so once


def digest(tensors: tuple[Tensor, ...], params: dict[str, Any] | None) -> bytes | None:
    """Give the same for the same input only: names, dtypes, shapes and values.

    None for values that cannot be written down, such as integers beyond 64 bits.
    """
    try:
        return _digest(tensors, params)
    except (OverflowError, TypeError):
        return None


def _digest(tensors: tuple[Tensor, ...], params: dict[str, Any] | None) -> bytes:
    found = hashlib.blake2b(digest_size=32)
    for tensor in tensors:
        data = tensor.data
        head = (tensor.name, data.dtype.str, data.shape)
        found.update(_value_encoder.encode(head))
        if data.dtype == object:
            found.update(_value_encoder.encode(data.tolist()))
        else:
            found.update(np.ascontiguousarray(data).view(np.uint8).data)
    if params:
        found.update(_value_encoder.encode(params))
    return found.digest()


def _copy(data: Array) -> Array:
    """Copy: what came from an engine may be a view of a whole frame."""
    copied: Array = data.copy()
    copied.flags.writeable = False
    return copied


def _bytes(data: Array) -> int:
    if data.dtype != object:
        return int(data.nbytes)
    return int(data.nbytes) + sum(_object_bytes(value) for value in data.flat)


def _object_bytes(value: Any) -> int:
    """Count a JSON value with all that it holds."""
    size = sys.getsizeof(value)
    if isinstance(value, list):
        return size + sum(map(_object_bytes, value))
    if isinstance(value, dict):
        keys = sum(map(_object_bytes, value))
        return size + keys + sum(map(_object_bytes, value.values()))
    return size
