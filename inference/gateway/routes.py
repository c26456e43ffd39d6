"""Find the paths that the gateway answers itself."""

from typing import NamedTuple

from inference.dialects.dialect import Dialect, Operation
from inference.dialects.native.native import NATIVE
from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.dialects.operations import OPERATIONS

_MODELS = "/api/v1/models/"
_MODELS_LENGTH = len(_MODELS)
_OPERATIONS = {it.path: (it.operation, it.dialect) for it in OPERATIONS}
_OPEN_INFERENCE = "/v2/models/"
_OPEN_INFERENCE_LENGTH = len(_OPEN_INFERENCE)
_ALIVE = frozenset({"/healthz", "/health"})
_READY = frozenset({"/readyz", "/ready"})


class PredictionPath(NamedTuple):
    operation: Operation
    model: str | None = None
    version: str | None = None
    dialect: Dialect = NATIVE


_SITE_DEFAULT = {
    f"/api/v1/{it.path}": PredictionPath(it.operation, dialect=it.dialect)
    for it in OPERATIONS
    if it.summary_with_default_model
}


def find_prediction(path: str) -> PredictionPath | None:
    """Read the path of a prediction; None for any other path."""
    if path[:_MODELS_LENGTH] != _MODELS:
        if path[:_OPEN_INFERENCE_LENGTH] == _OPEN_INFERENCE:
            return _find_open_inference(path)
        return _SITE_DEFAULT.get(path)
    model, _, rest = path[_MODELS_LENGTH:].partition("/")
    version = None
    if rest[:9] == "versions/":
        version, _, rest = rest[9:].partition("/")
    found = _OPERATIONS.get(rest)
    if found is None or not model or version == "":
        return None
    operation, dialect = found
    return PredictionPath(operation, model, version, dialect)


def _find_open_inference(path: str) -> PredictionPath | None:
    model, _, rest = path[_OPEN_INFERENCE_LENGTH:].partition("/")
    version = None
    if rest[:9] == "versions/":
        version, _, rest = rest[9:].partition("/")
        if not version:
            return None
    if rest != "infer" or not model:
        return None
    return PredictionPath("predict", model, version, OPEN_INFERENCE)


def asks_alive(path: str) -> bool:
    return path in _ALIVE


def asks_ready(path: str) -> bool:
    return path in _READY


def is_private(path: str) -> bool:
    """Return whether a path is for this installation's own processes and operators."""
    first = path.lstrip("/").partition("/")[0].lower()
    return first in ("internal", "metrics")


def has_dots(path: str) -> bool:
    """Return whether a segment is `.` or `..`, which clients resolve (RFC 3986, 5.2.4).

    A proxy may resolve them too, and would then check another path than we answer.
    """
    return "/." in path and not {".", ".."}.isdisjoint(path.split("/"))
