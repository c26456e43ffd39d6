"""Select and prepare the outputs that a request asked for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inference.codecs.rows.values import readable_name
from inference.dialects.open_inference.messages import RequestedOutput
from inference.dialects.open_inference.parameters import OpenInferenceRequest
from inference.engine.wire.joined_outputs import ONLY_OUTPUT
from inference.engine.wire.tensors import Array, Tensor
from inference.errors.api_error import ApiError, ErrorCode

_MAX_DETAILS = 3


class WantedOutput(NamedTuple):
    """An output of the answer; `binary` means that it is sent as raw bytes."""

    name: str
    data: Array
    binary: bool


def wanted(
    tensors: Sequence[Tensor],
    requested: Sequence[RequestedOutput] | None,
    *,
    binary: bool,
    labels: Sequence[str],
) -> list[WantedOutput]:
    """Return the requested outputs, or all if none is named.

    `binary` is the default for outputs that do not set it. Raises ApiError for an
    output that the model does not have.
    """
    if requested is None or not requested:
        return [WantedOutput(tensor.name, tensor.data, binary) for tensor in tensors]
    by_name = {tensor.name: tensor.data for tensor in tensors}
    found = []
    for output in requested:
        data = by_name.get(output.name)
        if data is None:
            names = ", ".join(f"`{name}`" for name in list(by_name)[:20])
            message = (
                f"The model has no output `{readable_name(output.name)}`. "
                f"Its outputs are {names}."
            )
            raise ApiError(ErrorCode.INVALID_INPUT, message)
        parameters = output.parameters
        if parameters.classification:
            data = classify(data, parameters.classification, labels)
        as_raw = binary if parameters.binary_data is None else parameters.binary_data
        found.append(WantedOutput(output.name, data, as_raw))
    return found


def fixed(prediction: Any, rows: int) -> tuple[Tensor, ...]:
    """Return a fixed answer as outputs, one for each member if it is an object.

    Numbers and lists of numbers stay numbers; any other value becomes text.
    """
    members = prediction if isinstance(prediction, dict) else {}
    return tuple(
        Tensor(name, _repeated(value, rows))
        for name, value in (members or {ONLY_OUTPUT: prediction}).items()
    )


def _repeated(value: Any, rows: int) -> Array:
    try:
        array: Any = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = None
    if array is None or array.dtype.kind not in "biuf" or not array.size:
        array = np.empty((), object)
        array[()] = value
    elif array.dtype.kind == "f":
        # float32, as torch models return, unless JSON would show another number.
        with np.errstate(over="ignore"):
            narrow = array.astype("float32")
        if (narrow.astype(str).astype("float64") == array).all():
            array = narrow
    repeated: Array = np.repeat(array[np.newaxis], rows, axis=0)
    return repeated


def classify(data: Array, count: int, labels: Sequence[str]) -> Array:
    """Return the best `count` classes of each row as "score:index:label", best first.

    Specification: https://github.com/triton-inference-server/server, protocol extension
    "classification". Raises ApiError if the output does not hold scores.
    """
    if data.dtype.kind not in "fiu" or data.ndim < 1:
        message = "This output does not hold scores, so it cannot be classified."
        raise ApiError(ErrorCode.INVALID_INPUT, message)
    scores: Any = data.reshape(len(data), -1)
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :count]
    named = labels if len(labels) == scores.shape[1] else ()
    texts = np.empty(best.shape, object)
    for row, indexes in enumerate(best.tolist()):
        for place, index in enumerate(indexes):
            text = f"{scores[row, index]:f}:{index}"
            texts[row, place] = f"{text}:{named[index]}" if named else text
    return texts


def error_text(error: ApiError) -> str:
    """Return an error with its first details as one text: the protocol has no more."""
    further = "; ".join(error.further_details(_MAX_DETAILS))
    return " ".join((f"{error.code}:", error.message, further)).strip()


class FallbackModel(msgspec.Struct, frozen=True):
    """The model named by a fallback's answer, as `targets.fallback_json` writes it."""

    name: str
    fallback_reason: str

    @property
    def parameters(self) -> dict[str, bool | str]:
        """Parameters of the answer."""
        return {"fallback": True, "fallback_reason": self.fallback_reason}


def fixed_outputs(
    request: OpenInferenceRequest, prediction: Any
) -> list[WantedOutput] | None:
    """Return a fixed answer's outputs; None if the request names other outputs."""
    try:
        return wanted(
            fixed(prediction, request.rows),
            request.requested,
            binary=request.binary,
            labels=(),
        )
    except ApiError:
        return None
