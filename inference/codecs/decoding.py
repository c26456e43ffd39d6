"""Convert request bodies to tensors, by a decoder compiled once per version.

The fast path is one pass of msgspec over the body, with the version's columns and rules
as types. A body that it refuses takes the slow path, which parses it again and names
every bad field. If a member occurs twice, the last one counts.
"""

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from inference.codecs import media
from inference.codecs.images import EncodedImages, encoded, refuse_images
from inference.codecs.members import check_model, find_instances, unknown_members
from inference.codecs.options import NO_OPTIONS, Options, read_options
from inference.codecs.parameters import ParameterReader
from inference.codecs.rows.reader import DecodedRows, RowReader
from inference.codecs.rows.stacking import (
    Stack,
    stack_bare,
    stack_structs,
    stack_values,
)
from inference.codecs.rows.types import (
    KINDS,
    column_type,
    has_struct_names,
    named_row,
    tensor_row,
    tensors_row,
)
from inference.codecs.strict_json import parse_object as parse_object
from inference.engine.signatures.signature import (
    Layout,
    Signature,
    UnsupportedSignature,
)
from inference.engine.wire.tensors import Tensor
from inference.errors.api_error import Problem
from inference.errors.problems import MAX_PROBLEMS, refuse, refuse_size

MAX_SLOW_PASS_S = 0.005
# Exceptions of msgspec's decoders and of packing.
_REFUSED = (ValueError, OverflowError, RecursionError, struct.error)


class DecodedRequest(msgspec.Struct, frozen=True, gc=False):
    """The good rows of a request as tensors, and the problems of the bad rows."""

    tensors: tuple[Tensor, ...]
    # Rows in the tensors.
    rows: int
    options: Options
    # One instance was sent as an object, so the answer has `prediction`.
    single: bool = False
    model: str | None = None
    # Only with `return_errors: individual`: the number of rows in the request, the
    # positions of the good rows, and the problems of the bad ones.
    total: int = 0
    indexes: tuple[int, ...] | None = None
    problems: tuple[Problem, ...] = ()
    # The params of the signature that the caller set.
    params: dict[str, Any] | None = None
    # Pictures that the driver must still decode; see `with_images`.
    images: EncodedImages | None = None


class _Form(msgspec.Struct, frozen=True):
    """One way to write the instances."""

    decoder: msgspec.json.Decoder[Any]
    stack: Stack


class InstanceDecoder:
    """Reads the requests of one model version."""

    def __init__(self, signature: Signature) -> None:
        """Compile; raise UnsupportedSignature for dtypes that JSON cannot carry."""
        _require_known_dtypes(signature)
        self._signature = signature
        self._stack_values = stack_values(signature)
        self._parameters = ParameterReader(signature.params)
        self._row_reader: RowReader | None = None
        if signature.layout is Layout.TENSOR:
            arrays = _form(tensor_row(signature), self._stack_values)
            self._forms: tuple[_Form, ...] = (arrays,)
            self._array_forms: tuple[_Form, ...] = (arrays,)
            return
        stack = stack_structs(signature)
        has_names = has_struct_names(signature)
        if signature.layout is Layout.TENSORS:
            self._forms = self._array_forms = ()
            if not has_names:
                return
            objects = _form(
                tensors_row(signature.inputs, signature.padding), stack, single=True
            )
            self._forms = self._array_forms = (objects,)
            return
        arrays = _form(named_row(signature.columns, array_like=True), stack)
        self._forms = self._array_forms = (arrays,)
        if has_names:
            objects = _form(named_row(signature.columns), stack, single=True)
            self._forms = (objects, arrays)
            self._array_forms = (arrays, objects)
        if len(signature.columns) == 1:
            bare = _form(column_type(signature.columns[0]), stack_bare(signature))
            self._forms += (bare,)
            self._array_forms += (bare,)

    def decode_request(
        self,
        body: bytes | bytearray,
        *,
        content_type: bytes | None = None,
        max_rows: int | None = None,
        limit_name: str = "max_predict_rows",
        individual: bool = False,
    ) -> DecodedRequest:
        """Read a request body; `content_type` is None for JSON. Raises ApiError.

        With `individual` the option `return_errors` counts: if it is "individual", bad
        rows are returned as problems and do not refuse the request.
        """
        if content_type is not None:
            return self._decode_other(
                bytes(body), content_type, max_rows, limit_name, individual
            )
        for form in self._array_forms if _holds_arrays(body) else self._forms:
            try:
                request = form.decoder.decode(body)
                rows = request.instances
                single = False
                if rows is UNSET:
                    rows = request.inputs
                    if rows is UNSET:
                        break
                    if type(rows) is not list:
                        rows = [rows]
                        single = True
                elif request.inputs is not UNSET:
                    break
                if not rows:
                    break
                params = None
                if request.parameters:
                    if not self._signature.params:
                        break
                    params, bad = self._parameters.read(request.parameters)
                    if bad:
                        break
                if max_rows is not None and len(rows) > max_rows:
                    refuse_size(len(rows), max_rows, limit_name)
                options = request.options
                return DecodedRequest(
                    form.stack(rows),
                    len(rows),
                    NO_OPTIONS if options is None else options,
                    single,
                    request.model,
                    params=params,
                )
            except _REFUSED:
                continue
        return self._decode_slowly(
            bytes(body), max_rows=max_rows, limit_name=limit_name, individual=individual
        )

    def decode_rows(self, rows: Sequence[Any]) -> DecodedRows:
        """Check parsed rows, each on its own."""
        return self._rows().read(rows)

    def decode_text_rows(self, rows: Sequence[Any]) -> DecodedRows:
        """Check parsed rows whose values may be text, as in CSV.

        If rows are bad, reading may stop before the last: the request is refused.
        """
        return self._rows().read(
            rows, from_text=True, max_told=MAX_PROBLEMS, max_seconds=MAX_SLOW_PASS_S
        )

    def _rows(self) -> RowReader:
        if self._row_reader is None:
            self._row_reader = RowReader(self._signature)
        return self._row_reader

    def _decode_slowly(
        self, body: bytes, *, max_rows: int | None, limit_name: str, individual: bool
    ) -> DecodedRequest:
        request = parse_object(body)
        problems = unknown_members(request)
        options, bad_options = read_options(request.get("options"))
        params, bad_parameters = self._parameters.read(request.get("parameters"))
        problems += bad_options + bad_parameters
        problems += check_model(request.get("model"))
        rows, single, bad_rows = find_instances(request)
        problems += bad_rows
        if max_rows is not None and len(rows) > max_rows:
            refuse_size(len(rows), max_rows, limit_name)
        if problems:
            refuse(problems)
        model = request.get("model")
        if self._signature.image is not None:
            files = media.image_rows(rows)
            if files is not None:
                return self._with_files(
                    files,
                    [None] * len(files),
                    options,
                    params,
                    single,
                    model,
                    individual,
                )
        if individual and options.return_errors == "individual":
            decoded = self._rows().read(rows, max_told=MAX_PROBLEMS)
            return DecodedRequest(
                decoded.tensors,
                len(decoded.indexes),
                options,
                single,
                model,
                len(rows),
                tuple(decoded.indexes),
                tuple(decoded.problems),
                params=params or None,
            )
        decoded = self._rows().read(
            rows, max_told=MAX_PROBLEMS, max_seconds=MAX_SLOW_PASS_S
        )
        if decoded.problems:
            refuse(decoded.problems, cut_off=decoded.cut_off)
        return DecodedRequest(
            decoded.tensors, len(rows), options, single, model, params=params or None
        )

    def _decode_other(
        self,
        body: bytes,
        content_type: bytes,
        max_rows: int | None,
        limit_name: str,
        individual: bool,
    ) -> DecodedRequest:
        signature = self._signature
        kind = media.media_type(content_type)
        if kind == media.TEXT_TYPE:
            text = media.read_text_body(body, signature)
            read = self._rows().read([text])
            if read.problems:
                refuse(read.problems)
            return DecodedRequest(read.tensors, 1, NO_OPTIONS)
        if kind in media.BODY_IMAGE_TYPES:
            images = media.read_image_body(body, signature)
            return DecodedRequest((), 1, NO_OPTIONS, images=images)
        files, fields, members = media.read_form(body, content_type, signature)
        if max_rows is not None and len(files) > max_rows:
            refuse_size(len(files), max_rows, limit_name)
        options, problems = read_options(members.get("options"))
        params, bad_parameters = self._parameters.read(members.get("parameters"))
        problems += bad_parameters
        if problems:
            refuse(problems)
        return self._with_files(files, fields, options, params, False, None, individual)

    def _with_files(
        self,
        files: list[bytes | str],
        fields: list[str | None],
        options: Options,
        params: dict[str, Any],
        single: bool,
        model: str | None,
        individual: bool,
    ) -> DecodedRequest:
        apart = individual and options.return_errors == "individual"
        images = encoded(self._signature, files, fields, individual=apart)
        return DecodedRequest(
            (), len(files), options, single, model, params=params or None, images=images
        )


def with_images(decoded: DecodedRequest, read: DecodedRows) -> DecodedRequest:
    """Put decoded pictures into their request; raise ApiError for bad ones."""
    assert decoded.images is not None, "only requests with pictures come here"
    if not read.problems:
        return msgspec.structs.replace(decoded, tensors=read.tensors, images=None)
    if not decoded.images.individual:
        raise refuse_images(read.problems)
    return msgspec.structs.replace(
        decoded,
        tensors=read.tensors,
        rows=len(read.indexes),
        total=decoded.rows,
        indexes=tuple(read.indexes),
        problems=tuple(read.problems),
        images=None,
    )


def _require_known_dtypes(signature: Signature) -> None:
    dtypes = {column.dtype for column in signature.columns}
    dtypes |= {given.dtype for given in signature.inputs}
    if signature.layout in (Layout.MATRIX, Layout.TENSOR):
        dtypes.add(signature.dtype)
    if unknown := dtypes - KINDS.keys():
        raise UnsupportedSignature(f"Inputs of type {', '.join(unknown)} are unknown.")


def _form(row: Any, stack: Stack, *, single: bool = False) -> _Form:
    inputs = list[row] | row if single else list[row]
    request = msgspec.defstruct(
        "Request",
        [
            ("instances", list[row] | UnsetType, UNSET),
            ("inputs", inputs | UnsetType, UNSET),
            ("options", Options | None, None),
            ("parameters", dict[str, Any] | None, None),
            ("model", str | None, None),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    return _Form(msgspec.json.Decoder(request), stack)


def _holds_arrays(body: bytes | bytearray) -> bool:
    """Guess whether instances are arrays; the other forms are tried afterwards."""
    start = body.find(b"[") + 1
    return start > 0 and body[start : start + 40].lstrip()[:1] == b"["
