"""Read and write the project's own JSON: `instances` in, `predictions` out."""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from accounts.admission.limits import Limits
from inference.codecs import media
from inference.codecs.answers import Warned
from inference.codecs.decoding import DecodedRequest
from inference.codecs.files.uploaded import AskedFile, UploadedFile
from inference.codecs.media import BODY_IMAGE_TYPES, FORM_TYPE, TEXT_TYPE
from inference.codecs.options import NO_OPTIONS, Options
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished, Headers
from inference.dialects.native import file_requests
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import problem, with_facts
from inference.errors.rendering import JSON, render
from inference.snapshot.targets import Target

_SVG = b"image/svg+xml"
_OTHER_TYPES = BODY_IMAGE_TYPES | {FORM_TYPE, TEXT_TYPE}


class _Body(msgspec.Struct, gc=False, omit_defaults=True):
    predictions: list[Any] | Raw | UnsetType
    prediction: Any
    model: Raw
    request_id: str
    warnings: tuple[Warned, ...] = ()
    errors: tuple[Problem, ...] = ()
    explanations: Any = UNSET


_encoder = msgspec.json.Encoder()


class NativeDialect:
    """The project's own JSON; errors have its one shape, or RFC 9457 on request."""

    # For forms and pictures. JSON may be less: parsing it blocks all other calls.
    max_binary_body_bytes = 32 * 1024 * 1024

    def prepare(self, call: Call) -> int | None:
        head = call.head
        if not head.accepted.json:
            explaining = call.explain or call.operation == "explain"
            if not (head.accepted.svg and explaining):
                raise ApiError(
                    ErrorCode.NOT_ACCEPTABLE, "Answers are application/json."
                )
        other = head.other_content_type
        if other is None:
            call_headers.require_plain_body(head)
            return None
        kind = media.media_type(other)
        if kind.startswith("image/") and kind not in BODY_IMAGE_TYPES:
            message = "Models that take images take PNG or JPEG, also in a form."
            raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
        if kind not in _OTHER_TYPES:
            # Raises an error that names the right type.
            call_headers.require_json_body(head)
        call_headers.require_plain_body(head)
        return None if kind == TEXT_TYPE else self.max_binary_body_bytes

    def decode(
        self, call: Call, target: Target, body: bytes, limits: Limits
    ) -> DecodedRequest:
        decoder = target.tools()[0]
        content_type = call.head.other_content_type
        if call.operation == "batch":
            decoded = decoder.decode_request(
                body,
                content_type=content_type,
                max_rows=limits.max_batch_rows,
                limit_name="max_batch_rows",
                individual=True,
            )
        else:
            decoded = decoder.decode_request(
                body, content_type=content_type, max_rows=limits.max_predict_rows
            )
            if decoded.options is not NO_OPTIONS:
                _refuse_batch_options(decoded.options)
        if decoded.model is not None and decoded.model != target.key.model:
            message = "`model` in the body is not the model of the path."
            raise ApiError(ErrorCode.INVALID_INPUT, message)
        return decoded

    def find_file(self, body: bytes) -> AskedFile | None:
        return file_requests.find(body)

    def decode_file(
        self,
        call: Call,
        target: Target,
        asked: AskedFile,
        file: UploadedFile,
        limits: Limits,
    ) -> DecodedRequest:
        batch = call.operation == "batch"
        decoded = file_requests.decode(
            asked,
            file,
            target,
            max_rows=limits.max_batch_rows if batch else limits.max_predict_rows,
            limit_name="max_batch_rows" if batch else "max_predict_rows",
            individual=batch,
        )
        if not batch:
            _refuse_batch_options(decoded.options)
        return decoded

    def encode(self, finished: Finished) -> tuple[bytes, bytes, Headers]:
        explained = finished.explained
        if explained is not None and explained.svg and finished.call.head.accepted.svg:
            return _SVG, explained.svg.encode(), []
        return JSON, _encode_body(finished), []

    def encode_fixed(
        self,
        request_id: str,
        model_json: Raw,
        decoded: DecodedRequest,
        prediction: Any,
    ) -> tuple[bytes, bytes, Headers] | None:
        placed = _place([prediction] * decoded.rows, decoded)
        single = decoded.single
        answer = _Body(
            UNSET if single else placed,
            placed[0] if single else UNSET,
            model_json,
            request_id,
            errors=decoded.problems,
        )
        return JSON, _encoder.encode(answer), []

    def render(
        self, call: Call, error: ApiError, *, request_id: str, now: float
    ) -> tuple[int, Headers, bytes]:
        return render(
            error,
            request_id=request_id,
            now=now,
            problem_json=call.head.accepted.problem_json,
        )


NATIVE = NativeDialect()


def _encode_body(finished: Finished) -> bytes:
    target, decoded = finished.target, finished.decoded
    predictions: list[Any] = []
    if finished.prediction is not None:
        encoder, outputs = target.tools()[1], finished.prediction.tensors
        plain = decoded.indexes is None and not decoded.single
        if plain and finished.explained is None:
            many = encoder.many_as_json(outputs, decoded.options)
            if many is not None:
                return _encoder.encode(
                    _Body(Raw(many), UNSET, target.model_json, finished.request_id)
                )
        predictions = encoder.predictions(outputs, decoded.options)
    placed = _place(predictions, decoded)
    single = decoded.single
    answer = _Body(
        UNSET if single else placed,
        placed[0] if single else UNSET,
        target.model_json,
        finished.request_id,
        errors=decoded.problems,
    )
    if finished.explained is not None:
        answer.explanations = finished.explained.explanations
    body = _encoder.encode(answer)
    # NaN and infinity are null by now; a search in bytes is cheaper than in rows.
    if b"null" in body and finished.prediction is not None:
        warnings = encoder.warnings(predictions, outputs)
        if warnings and decoded.indexes is not None:
            warnings = tuple(
                Warned(decoded.indexes[warned.index]) for warned in warnings
            )
        if warnings:
            answer.warnings = warnings
            body = _encoder.encode(answer)
    return body


def _place(predictions: list[Any], decoded: DecodedRequest) -> list[Any]:
    """Return predictions in the order of the request, with None for bad instances."""
    if decoded.indexes is None:
        return predictions
    placed: list[Any] = [None] * decoded.total
    for index, prediction in zip(decoded.indexes, predictions, strict=True):
        placed[index] = prediction
    return placed


def _refuse_batch_options(options: Options) -> None:
    """Refuse an option that only batches have: elsewhere it would be ignored."""
    if options.return_errors != "fail":
        issue = "is an option of /predict/batch only"
        raise with_facts([problem("options.return_errors", issue)])
