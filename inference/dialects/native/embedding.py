"""Answer a predict body with embeddings: one vector per instance."""

import base64
from typing import Any

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Raw, UnsetType

from accounts.admission.limits import Limits
from inference.codecs.answers import Warned
from inference.codecs.decoding import DecodedRequest
from inference.dialects.dialect import Call, Finished, Headers
from inference.dialects.native.native import NativeDialect
from inference.engine.signatures.signature import Task
from inference.engine.wire.tensors import Array
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.rendering import JSON
from inference.snapshot.targets import Target

_encoder = msgspec.json.Encoder()


class _Body(msgspec.Struct, gc=False, omit_defaults=True):
    embeddings: list[Any] | UnsetType
    embedding: Any
    dimension: int
    model: Raw
    request_id: str
    warnings: tuple[Warned, ...] = ()


class EmbeddingDialect(NativeDialect):
    """Embeddings as lists of numbers or base64; models of other tasks are refused."""

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        if target.signature.task is not Task.EMBEDDING:
            raise ApiError(
                ErrorCode.INVALID_INPUT,
                "This model does not return embeddings: its metadata has no "
                "`task: embedding`. Call predict instead.",
            )
        return super().decode(call, target, body, limits)

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        assert finished.prediction is not None, "there is no request without rows"
        return _write(
            _vectors(finished.prediction.tensors[0].data),
            finished.decoded,
            finished.target.model_json,
            finished.request_id,
        )

    def encode_fixed(
        self,
        request_id: str,
        model_json: Raw,
        decoded: DecodedRequest,
        prediction: Any,
    ) -> tuple[bytes, bytes, Headers] | None:
        """Write a list of numbers as the vector of every instance."""
        try:
            vector = msgspec.convert(prediction, list[float])
        except msgspec.ValidationError:
            return None
        if not vector:
            return None
        vectors = np.array([vector] * decoded.rows, "float32")
        return _write(vectors, decoded, model_json, request_id)


EMBEDDING = EmbeddingDialect()


def scaled_to_one(vectors: Array) -> Array:
    """Scale each row of `[rows, dimension]` to length 1; a zero vector stays zero."""
    numbers: Any = vectors
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    scaled: Array = numbers / np.where(lengths == 0, 1, lengths)
    return scaled


def _vectors(data: Array) -> Array:
    if data.ndim != 2 or data.dtype.kind != "f":
        message = "The model did not answer with one vector per instance."
        raise ApiError(ErrorCode.MODEL_ERROR, message)
    # float16 becomes float32, whose JSON is the same.
    return data.astype("float32") if data.dtype.itemsize < 4 else data


def _write(
    vectors: Array, decoded: DecodedRequest, model_json: Raw, request_id: str
) -> tuple[bytes, bytes, Headers]:
    options = decoded.options
    if options.normalize:
        vectors = scaled_to_one(vectors)
    warnings: tuple[Warned, ...] = ()
    written: Any
    if options.encoding_format == "base64":
        rows = np.ascontiguousarray(vectors, "<f4")
        written = [base64.b64encode(row).decode() for row in rows]
    else:
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            warnings = tuple(map(Warned, np.flatnonzero(~finite).tolist()))
        # Numbers that are not finite become null.
        written = [
            Raw(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
            for row in np.ascontiguousarray(vectors)
        ]
    single = decoded.single
    answer = _Body(
        UNSET if single else written,
        written[0] if single else UNSET,
        vectors.shape[1],
        model_json,
        request_id,
        warnings,
    )
    return JSON, _encoder.encode(answer), []
