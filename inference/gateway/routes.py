"""Which paths the gateway answers itself. Pure."""

from posixpath import normpath
from typing import NamedTuple

from inference.prediction import Operation

_MODELS = "/api/v1/models/"
_MODELS_LENGTH = len(_MODELS)
_OPERATIONS: dict[str, Operation] = {
    "predict": "predict",
    "predict/batch": "batch",
    "explain": "explain",
}
_ALIVE = frozenset({"/healthz", "/health"})
_READY = frozenset({"/readyz", "/ready"})


class PredictionPath(NamedTuple):
    operation: Operation
    model: str | None = None
    version: str | None = None


_SITE_DEFAULT = {
    "/api/v1/predict": PredictionPath("predict"),
    "/api/v1/predict/batch": PredictionPath("batch"),
}


def find_prediction(path: str) -> PredictionPath | None:
    """Read the path of a prediction; None if it is another's."""
    if path[:_MODELS_LENGTH] != _MODELS:
        return _SITE_DEFAULT.get(path)
    model, _, rest = path[_MODELS_LENGTH:].partition("/")
    operation = _OPERATIONS.get(rest)
    if operation is not None:
        return PredictionPath(operation, model) if model else None
    if rest[:9] != "versions/":
        return None
    version, _, rest = rest[9:].partition("/")
    operation = _OPERATIONS.get(rest)
    if operation is None or not model or not version:
        return None
    return PredictionPath(operation, model, version)


def asks_alive(path: str) -> bool:
    return path in _ALIVE


def asks_ready(path: str) -> bool:
    return path in _READY


def is_private(path: str) -> bool:
    """Tell whether a path is for this installation's own processes and operators.

    Dots are followed first, as they are on the way to the site.
    """
    first = normpath(path).strip("/").partition("/")[0].lower()
    return first in ("internal", "metrics")
