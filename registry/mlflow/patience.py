"""Bound the time that a sync loses to questions that MLflow does not answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from registry.mlflow.types import RegistryUnreachable


class Patience:
    """Ends once failed questions have cost more than `seconds` together.

    Quick refusals cost little, so many of them keep nobody else from an answer.
    """

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    @property
    def has_ended(self) -> bool:
        return self._left_s < 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Count the time of a question that raises RegistryUnreachable."""
        started = time.monotonic()
        try:
            yield
        except RegistryUnreachable:
            self._left_s -= time.monotonic() - started
            raise
