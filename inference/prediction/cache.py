"""Cache predictions by their input.

An entry holds the model's output, not the answer made of it: options that only shape
the answer, such as `top_k`, share an entry. The key is a digest of the decoded tensors,
so the same rows match however a body writes them.

A full cache evicts the least recently used entry of the customer who holds most. So a
customer who sends ever new inputs evicts its own predictions.
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
# Size of an entry beside its arrays: key, structs, hash table.
_ENTRY_BYTES = 600
# An entry may be at most 1/8 of the cache; a larger one would evict too many others.
_GREATEST_SHARE = 8

_value_encoder = msgspec.msgpack.Encoder(order="deterministic")

# The version with its artifact, the customer (0: shared by all), the input's digest.
Key = tuple[object, int, bytes]


class CacheCounts(msgspec.Struct):
    """What a cache did since its process started, and what it holds now."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    entries: int = 0
    bytes: int = 0


class _Holding(msgspec.Struct, gc=False):
    """The entries that one customer stored, least recently used first."""

    customer_id: int
    keys: OrderedDict[Key, None]
    # Bytes, plus `max_bytes / max_entries` for each entry: both bounds count.
    weight: int = 0


class _Entry(msgspec.Struct, gc=False):
    prediction: Prediction
    stored_s: float
    bytes: int
    holding: _Holding


class PredictionCache:
    """A cache that customers share, bounded by entries and bytes.

    A prediction counts for the customer who stored it. Times are monotonic seconds
    passed in by the caller.
    """

    def __init__(
        self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entry_weight = max_bytes // max(max_entries, 1)
        self._entries: dict[Key, _Entry] = {}
        self._holdings: dict[int, _Holding] = {}
        # A heap of (-weight, customer), heaviest first: the weight of each holding, and
        # earlier weights, which `_greatest` skips.
        self._by_weight: list[tuple[int, int]] = []
        self.counts = CacheCounts()

    def get(self, key: Key, *, now_s: float, ttl_s: float) -> Prediction | None:
        """Return the prediction if it was stored less than `ttl_s` ago."""
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
        """Store a customer's prediction; evict others if there is no room."""
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
        """Return the heaviest holding."""
        while True:
            weight, customer_id = self._by_weight[0]
            holding = self._holdings.get(customer_id)
            if holding is not None and holding.weight == -weight:
                return holding
            heapq.heappop(self._by_weight)  # an earlier weight


def digest(tensors: tuple[Tensor, ...], params: dict[str, Any] | None) -> bytes | None:
    """Hash an input: names, dtypes, shapes and values of tensors, and parameters.

    Returns None for values that msgpack cannot write, such as integers beyond 64 bits.
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
    """Copy an array, which may be a view of a whole frame from the engine."""
    copied: Array = data.copy()
    copied.flags.writeable = False
    return copied


def _bytes(data: Array) -> int:
    if data.dtype != object:
        return int(data.nbytes)
    return int(data.nbytes) + sum(_object_bytes(value) for value in data.flat)


def _object_bytes(value: Any) -> int:
    """Return the size of a JSON value, with all values in it."""
    size = sys.getsizeof(value)
    if isinstance(value, list):
        return size + sum(map(_object_bytes, value))
    if isinstance(value, dict):
        keys = sum(map(_object_bytes, value))
        return size + keys + sum(map(_object_bytes, value.values()))
    return size
