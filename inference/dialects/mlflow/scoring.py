"""Speak MLflow's scoring protocol as `mlflow models serve` does.

Predictions are the model's own outputs, without our labels and scores. Specification:
MLflow 3.17, `mlflow.pyfunc.scoring_server`.
"""

import base64
from functools import lru_cache
from typing import Any

import msgspec

from accounts.admission.limits import Limits
from inference.codecs.decoding import DecodedRequest
from inference.codecs.options import NO_OPTIONS
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished, Headers
from inference.dialects.mlflow import inputs
from inference.dialects.open_inference.parameters import parameter_reader
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.dtypes import OBJECT_DTYPES
from inference.engine.wire.joined_outputs import ONLY_OUTPUT
from inference.engine.wire.tensors import Array, Tensor
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import refuse_size, with_facts
from inference.errors.rendering import JSON, headers_of
from inference.snapshot.targets import Target

# Codes of `mlflow.protos.databricks_pb2.ErrorCode`, by HTTP status.
_ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_MAX_TOLD = 5

_encoder = msgspec.json.Encoder()


class MlflowDialect:
    """JSON in four formats or CSV in, `predictions` out."""

    def prepare(self, call: Call) -> int | None:
        given = call.head.content_type
        if given is not None and _format_of(given) is None:
            message = "Send application/json or text/csv, in UTF-8."
            raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
        call_headers.require_plain_body(call.head)
        return None

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        signature = target.signature
        given = call.head.content_type
        if given is not None and _format_of(given) == "csv":
            rows = inputs.read_csv(body, signature)
            return _decode_rows(target, rows, None, limits)
        instances = inputs.as_instances(body, signature)
        if instances is not None:
            try:
                return target.tools()[0].decode_request(
                    instances,
                    max_rows=limits.max_batch_rows,
                    limit_name="max_batch_rows",
                )
            except ApiError as error:
                if error.code is ErrorCode.TOO_LARGE:
                    raise
        rows, params = inputs.read_json(body, signature)
        return _decode_rows(target, rows, params, limits)

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        assert finished.prediction is not None, "there is no request without rows"
        outputs = finished.prediction.tensors
        answer = {"predictions": to_predictions(outputs, finished.target.signature)}
        return JSON, _encoder.encode(answer), []

    def encode_fixed(
        self,
        request_id: str,
        model_json: msgspec.Raw,
        decoded: DecodedRequest,
        prediction: Any,
    ) -> tuple[bytes, bytes, Headers]:
        answer = {"predictions": [prediction] * decoded.rows}
        return JSON, _encoder.encode(answer), []

    def render(
        self, call: Call, error: ApiError, *, request_id: str, now: float
    ) -> tuple[int, Headers, bytes]:
        told = [f"{words}." for words in error.further_details(_MAX_TOLD)]
        body = _encoder.encode(
            {
                "error_code": _ERROR_CODES.get(error.status, "BAD_REQUEST"),
                "message": " ".join([error.message, *told]),
            }
        )
        return error.status, headers_of(error, request_id, len(body)), body


MLFLOW = MlflowDialect()


def _decode_rows(
    target: Target, rows: inputs.Rows, params: Any, limits: Limits
) -> DecodedRequest:
    if len(rows) > limits.max_batch_rows:
        refuse_size(len(rows), limits.max_batch_rows, "max_batch_rows")
    signature = target.signature
    if signature.layout in (Layout.TENSOR, Layout.TENSORS):
        dtypes = {signature.dtype, *(given.dtype for given in signature.inputs)}
        if OBJECT_DTYPES.isdisjoint(dtypes):
            rows = inputs.with_numbers(rows)
    known, problems = _known_params(target, params)
    decoded = target.tools()[0].decode_text_rows(rows)
    problems += decoded.problems
    if problems:
        raise with_facts(problems, cut_off=decoded.cut_off)
    return DecodedRequest(decoded.tensors, len(rows), NO_OPTIONS, params=known)


def _known_params(
    target: Target, given: Any
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Check the params that the model has; ignore others, as MLflow does."""
    names = {param.name for param in target.signature.params}
    if not names or given is None:
        return None, []
    if isinstance(given, dict):
        given = {name: value for name, value in given.items() if name in names}
    values, problems = target.compiled(parameter_reader).read(given)
    return values or None, problems


def to_predictions(outputs: tuple[Tensor, ...], signature: Signature) -> Any:
    """Return outputs in MLflow's form: float32 with all digits of the same double.

    Several outputs are columns of a table, one record per row; but a model of tensors
    returns tensors by name. NaN and infinity are not JSON and become null.
    """
    if len(outputs) == 1 and outputs[0].name == ONLY_OUTPUT:
        return _values(outputs[0].data)
    if signature.layout is not Layout.TABLE:
        return {tensor.name: _values(tensor.data) for tensor in outputs}
    names = [tensor.name for tensor in outputs]
    columns = [_values(tensor.data) for tensor in outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(data: Array) -> list[Any]:
    if data.dtype.kind == "M":
        # As pandas writes its time stamps.
        return [_time(value) for value in data.astype("datetime64[ns]").reshape(-1)]
    values: list[Any] = data.tolist()
    if data.dtype == object:
        return [_value(value) for value in values]
    return values


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.encodebytes(value).decode()
    return value


def _time(value: Any) -> str | None:
    text = str(value)
    if text == "NaT":
        return None
    day, _, fraction = text.partition(".")
    digits = fraction.rstrip("0")
    if not digits:
        return day
    # 6 or 9 digits: microseconds or nanoseconds.
    return f"{day}.{digits.ljust(6 if len(digits) <= 6 else 9, '0')}"


@lru_cache(maxsize=256)
def _format_of(content_type: bytes) -> str | None:
    kind, *parameters = content_type.decode("latin-1").lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name != "charset" or value.strip('"') != "utf-8":
            return None
    return {"application/json": "json", "text/csv": "csv"}.get(kind.strip())
