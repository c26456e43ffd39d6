"""Count what happens in one process; threads may count at the same time."""

import threading
from bisect import bisect_left

import msgspec

from inference.metrics.table import METRICS


class Number(msgspec.Struct):
    """A counter or gauge, with the values of its labels after `process`."""

    name: str
    labels: tuple[str, ...]
    value: float


class Distribution(msgspec.Struct):
    """A histogram: how many values lie in each bucket, and their sum."""

    name: str
    labels: tuple[str, ...]
    buckets: list[int]
    total: float


class Counts:
    """All counts of one process since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, tuple[str, ...]], Number] = {}
        self._distributions: dict[tuple[str, tuple[str, ...]], Distribution] = {}

    def add(self, name: str, *labels: str, by: float = 1.0) -> None:
        with self._lock:
            self._number(name, labels).value += by

    def set(self, name: str, *labels: str, value: float) -> None:
        with self._lock:
            self._number(name, labels).value = value

    def observe(self, name: str, *labels: str, value: float) -> None:
        limits = METRICS[name].buckets
        with self._lock:
            found = self._distributions.get((name, labels))
            if found is None:
                found = Distribution(name, labels, [0] * (len(limits) + 1), 0.0)
                self._distributions[name, labels] = found
            found.buckets[bisect_left(limits, value)] += 1
            found.total += value

    def numbers(self) -> list[Number]:
        with self._lock:
            return [msgspec.structs.replace(it) for it in self._numbers.values()]

    def distributions(self) -> list[Distribution]:
        with self._lock:
            return [
                msgspec.structs.replace(it, buckets=list(it.buckets))
                for it in self._distributions.values()
            ]

    def _number(self, name: str, labels: tuple[str, ...]) -> Number:
        found = self._numbers.get((name, labels))
        if found is None:
            found = self._numbers[name, labels] = Number(name, labels, 0.0)
        return found


# What this process counts.
HERE = Counts()
