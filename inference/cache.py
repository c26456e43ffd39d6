"""Predictions kept for callers who send the same input again. Pure.

Kept is what the model gave, not the answer made of it: options that only shape the
answer, such as `top_k`, need no entry of their own. The key is made of the decoded
tensors, so however a body writes its rows, the same rows are the same input.
"""

import hashlib
import sys
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np

from inference.engine.tensors import Array, Prediction, Tensor

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


class _Entry(msgspec.Struct, gc=False):
    prediction: Prediction
    stored_s: float
    bytes: int


class PredictionCache:
    """Keeps the latest used predictions, within bounds of entries and bytes.

    Times are monotonic seconds passed in by the caller.
    """

    def __init__(
        self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
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
        self._entries.move_to_end(key)
        return entry.prediction

    def put(self, key: Key, prediction: Prediction, *, now_s: float) -> None:
        """Store; the least recently used leave if there is no room."""
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
            self._remove(next(iter(self._entries)))
            counts.evictions += 1
        kept = Prediction(
            tuple(Tensor(t.name, _copy(t.data)) for t in prediction.tensors),
            0,
            0,
            prediction.batch_rows,
        )
        self._entries[key] = _Entry(kept, now_s, size)
        counts.bytes += size
        counts.entries = len(self._entries)

    def _remove(self, key: Key) -> None:
        self.counts.bytes -= self._entries.pop(key).bytes
        self.counts.entries = len(self._entries)


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
