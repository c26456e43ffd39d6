"""Decide whether this gateway is ready, and list what it waits for."""

from inference.gateway.driver.engines import Engines
from inference.gateway.driver.recorder import Recorder
from inference.snapshot.tables import Tables


class Health:
    """Judge by the snapshot, the engines' last reports and the spool."""

    def __init__(self, tables: Tables, engines: Engines, recorder: Recorder) -> None:
        self._tables = tables
        self._engines = engines
        self._recorder = recorder
        # The last results, and the state they were computed from.
        self._obstacles: list[str] = []
        self._away: list[str] = []
        self._found_in: tuple[object, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.obstacles()

    def obstacles(self) -> list[str]:
        """List why this gateway should get no calls.

        One model's trouble is no reason, because a load balancer would stop sending
        calls for all other models too. If no default can answer, that is one. Anybody
        may ask, so the models are examined only if something has changed.
        """
        tables = self._tables
        looked_at = (
            id(tables.models),
            tables.sequence,
            self._engines.asked,
            self._recorder.failing,
        )
        if looked_at != self._found_in:
            self._found_in = looked_at
            self._look()
        return self._obstacles

    def away(self) -> list[str]:
        """List the defaults that cannot answer now."""
        self.obstacles()
        return self._away

    def _look(self) -> None:
        self._obstacles, self._away = [], []
        if not self._tables.sequence:
            self._obstacles.append("no snapshot was published yet")
            return
        if self._recorder.failing:
            self._obstacles.append("usage events cannot be written")
        answering = 0
        for entry in self._tables.models.values():
            default = entry.default
            if default is None:
                continue
            if self._engines.is_ready(default.key, on=default.engines):
                answering += 1
            else:
                self._away.append(f"{default.key} is ready on no engine")
        if self._away and not answering:
            self._obstacles += self._away

    def coming(self) -> list[str]:
        """List the models that will get their first served version."""
        return [
            f"{entry.model.name} has no default that is served yet"
            for entry in self._tables.models.values()
            if entry.model.routed
            and not entry.model.stuck
            and entry.default is None
            and not self._engines.has_failed(entry.model.name)
        ]
