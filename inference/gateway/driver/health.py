"""Decide whether this gateway is ready, and list what it waits for."""

from inference.engine.wire.messages import VersionKey
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.recorder import Recorder
from inference.snapshot.tables import Tables


class Health:
    """Judge by the snapshot, the engines' last reports and the spool."""

    def __init__(self, tables: Tables, engines: Engines, recorder: Recorder) -> None:
        self._tables = tables
        self._engines = engines
        self._recorder = recorder
        # The last result, and the state it was computed from.
        self._found: list[str] = []
        self._found_in: tuple[object, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.obstacles()

    def obstacles(self) -> list[str]:
        """List what prevents calls that could be answered before.

        A model whose first version is still loading does not count: a load balancer
        would stop sending calls for all other models too. Anybody may ask, so the
        models are examined only if something has changed.
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
            self._found = self._look()
        return self._found

    def _look(self) -> list[str]:
        tables = self._tables
        if not tables.sequence:
            return ["no snapshot was published yet"]
        found = []
        if self._recorder.failing:
            found.append("usage events cannot be written")
        for entry in tables.models.values():
            model = entry.model
            default = next((v for v in model.variants if v.role == "default"), None)
            if default is None:
                continue
            key = VersionKey(model.name, default.version)
            if not self._engines.is_ready(key, on=model.engines):
                found.append(f"{key} is ready on no engine")
        return found

    def coming(self) -> list[str]:
        """List the models that will get their first served version."""
        return [
            f"{entry.model.name} has no default that is served yet"
            for entry in self._tables.models.values()
            if entry.model.routed
            and not entry.model.stuck
            and not any(v.role == "default" for v in entry.model.variants)
            and not self._engines.has_failed(entry.model.name)
        ]
