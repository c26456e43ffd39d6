"""Request bodies to tensors, by a decoder compiled once per version. Pure.

The fast path is one pass of msgspec over the body, with the version's columns and
rules as types. Whatever it refuses goes through the slow path, which parses the body
again and names every bad field. A member that occurs twice counts as its last one.
"""

import json
import math
import struct
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from inference.engine.client import Tensor
from inference.engine.signature import Layout, Signature, UnsupportedSignature
from inference.errors import ApiError, ErrorCode, Problem
from inference.options import NO_OPTIONS, Options, read_options
from inference.row_problems import RowInspector, readable_name
from inference.row_types import (
    KINDS,
    Stack,
    column_type,
    late_checks,
    named_row,
    stack_structs,
    stack_values,
    tensor_row,
)

MAX_PROBLEMS = 100
MAX_SLOW_PASS_S = 0.005
_MAX_PROBLEMS_PER_ROW = 10
# What decoders and packing raise.
_REFUSED = (ValueError, OverflowError, RecursionError, struct.error)
_MEMBERS = frozenset({"instances", "inputs", "parameters", "options", "model"})


class DecodedRequest(msgspec.Struct, frozen=True, gc=False):
    """The good rows of a request, and the bad ones where they are told one by one."""

    tensors: tuple[Tensor, ...]
    # Rows in the tensors.
    rows: int
    options: Options
    # One instance was sent as an object: the answer has `prediction`.
    single: bool = False
    model: str | None = None
    # Only with `return_errors: individual`: rows in the request, the positions of
    # those in the tensors, and what is wrong with the others.
    total: int = 0
    indexes: tuple[int, ...] | None = None
    problems: tuple[Problem, ...] = ()


class DecodedRows(msgspec.Struct, frozen=True):
    """Tensors of the good rows, their positions, and what is wrong with the others."""

    tensors: tuple[Tensor, ...]
    indexes: list[int]
    problems: list[Problem]


class _Form(msgspec.Struct, frozen=True):
    """One way to write the instances."""

    decoder: msgspec.json.Decoder[Any]
    stack: Stack


class InstanceDecoder:
    """Reads the requests of one model version."""

    def __init__(self, signature: Signature) -> None:
        """Compile; raises UnsupportedSignature for dtypes that JSON cannot carry."""
        _require_known_dtypes(signature)
        self._signature = signature
        self._stack_values = stack_values(signature)
        self._has_late_rules = bool(late_checks(signature.columns))
        self._all_required = all(column.required for column in signature.columns)
        if signature.layout is Layout.TENSOR:
            self._row_type = tensor_row(signature)
            arrays = _form(self._row_type, self._stack_values)
            self._forms: tuple[_Form, ...] = (arrays,)
            self._array_forms: tuple[_Form, ...] = (arrays,)
            return
        stack = stack_structs(signature)
        self._row_type = named_row(signature.columns)
        objects = _form(self._row_type, stack, single=True)
        arrays = _form(named_row(signature.columns, array_like=True), stack)
        self._forms = (objects, arrays)
        self._array_forms = (arrays, objects)
        if len(signature.columns) == 1:
            bare = _form(
                column_type(signature.columns[0]),
                lambda rows: self._stack_values([(row,) for row in rows]),
            )
            self._forms += (bare,)
            self._array_forms += (bare,)

    def decode_request(
        self,
        body: bytes | bytearray,
        *,
        max_rows: int | None = None,
        limit_name: str = "max_predict_rows",
        individual: bool = False,
    ) -> DecodedRequest:
        """Read a request body.

        With `individual`, the option `return_errors` is obeyed: bad rows come back as
        problems instead of refusing the request. Raises ApiError.
        """
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
                if not rows or request.parameters:
                    break
                if max_rows is not None and len(rows) > max_rows:
                    _refuse_size(len(rows), max_rows, limit_name)
                options = request.options
                return DecodedRequest(
                    form.stack(rows),
                    len(rows),
                    NO_OPTIONS if options is None else options,
                    single,
                    request.model,
                )
            except _REFUSED:
                continue
        return self._decode_slowly(
            bytes(body), max_rows=max_rows, limit_name=limit_name, individual=individual
        )

    def decode_rows(
        self, rows: Sequence[Any], *, from_text: bool = False
    ) -> DecodedRows:
        """Check rows that are parsed already, each for itself.

        With `from_text` strings are read as what their column holds (CSV).
        """
        if not self._has_late_rules:
            quick = self._decode_quickly(rows, from_text=from_text)
            if quick is not None:
                return quick
        inspector = RowInspector(self._signature, max_problems=_MAX_PROBLEMS_PER_ROW)
        good, indexes, problems = [], [], []
        for index, row in enumerate(rows):
            values, found = inspector.inspect(row, index, from_text=from_text)
            if found:
                problems += found
            else:
                good.append(values)
                indexes.append(index)
        tensors = self._stack_values(good) if good else ()
        return DecodedRows(tensors, indexes, problems)

    def _decode_quickly(
        self, rows: Sequence[Any], *, from_text: bool
    ) -> DecodedRows | None:
        """Read rows of the first form, and inspect only those that are not.

        None if a value is not finite, or does not fit its dtype, which shows late.
        """
        inspector = RowInspector(self._signature, max_problems=_MAX_PROBLEMS_PER_ROW)
        as_tuple, row_type = msgspec.structs.astuple, self._row_type
        nested = self._signature.layout is Layout.TENSOR
        good, indexes, problems = [], [], []
        for index, row in enumerate(rows):
            try:
                read = msgspec.convert(row, row_type, strict=not from_text)
                values = read if nested else as_tuple(read)
            except (msgspec.ValidationError, RecursionError):
                values, found = inspector.inspect(row, index, from_text=from_text)
                if found:
                    problems += found
                    continue
            good.append(values)
            indexes.append(index)
        try:
            tensors = self._stack_values(good) if good else ()
        except (OverflowError, struct.error):
            return None
        if self._all_required and not all_finite(tensors):
            return None
        if not self._all_required and not _rows_finite(good):
            return None
        return DecodedRows(tensors, indexes, problems)

    def _decode_slowly(
        self, body: bytes, *, max_rows: int | None, limit_name: str, individual: bool
    ) -> DecodedRequest:
        request = parse_object(body)
        unknown = (name for name in request if name not in _MEMBERS)
        problems = [
            _problem(readable_name(name), "is not a member of a request")
            for name in islice(unknown, MAX_PROBLEMS)
        ]
        options, bad_options = read_options(request.get("options"))
        problems += bad_options + _check_parameters(request.get("parameters"))
        model = request.get("model")
        if model is not None and not isinstance(model, str):
            problems.append(_problem("model", "must be a string"))
        rows, single, bad_rows = _instances(request)
        problems += bad_rows
        if max_rows is not None and len(rows) > max_rows:
            _refuse_size(len(rows), max_rows, limit_name)
        if problems:
            _refuse(problems[:MAX_PROBLEMS])
        if individual and options.return_errors == "individual":
            decoded = self.decode_rows(rows)
            return DecodedRequest(
                decoded.tensors,
                len(decoded.indexes),
                options,
                single,
                model,
                len(rows),
                tuple(decoded.indexes),
                tuple(decoded.problems),
            )
        values = self._inspect(rows)
        tensors = self._stack_values(values)
        return DecodedRequest(tensors, len(values), options, single, model)

    def _inspect(self, rows: list[Any]) -> list[Any]:
        inspector = RowInspector(self._signature, max_problems=MAX_PROBLEMS)
        deadline = time.perf_counter() + MAX_SLOW_PASS_S
        values, problems = [], list[Problem]()
        for index, row in enumerate(rows):
            checked, found = inspector.inspect(row, index)
            values.append(checked)
            problems += found
            if problems and (
                len(problems) >= MAX_PROBLEMS or time.perf_counter() > deadline
            ):
                break
        if problems:
            _refuse(problems[:MAX_PROBLEMS])
        return values


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly; raises ApiError INVALID_JSON or INVALID_INPUT.

    Numbers beyond the range of a double become infinite, for the rules to refuse.
    """
    try:
        text = body.decode()
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)
        if "\\u" in text:
            # Half a surrogate pair parses, but is no text that can be passed on.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        # From error.msg alone: the exception's own text may hold the payload.
        place = f"line {error.lineno}, column {error.colno}"
        raise _not_json(f"The body is not JSON: {error.msg} ({place}).") from None
    except UnicodeError:
        raise _not_json("The body is not JSON: it is not valid Unicode.") from None
    except RecursionError:
        raise _not_json("The body is nested too deeply.") from None
    if not isinstance(value, dict):
        raise ApiError(ErrorCode.INVALID_INPUT, "The body must be a JSON object.")
    return value


def with_facts(problems: Sequence[Problem]) -> ApiError:
    """Make the error of a request with these problems: 422 only if all are rules."""
    rules_only = all(problem.code is ErrorCode.UNPROCESSABLE for problem in problems)
    code = ErrorCode.UNPROCESSABLE if rules_only else ErrorCode.INVALID_INPUT
    count = len(problems)
    message = "1 field is invalid." if count == 1 else f"{count} fields are invalid."
    details = tuple(msgspec.structs.replace(p, code=None) for p in problems)
    return ApiError(code, message, details=details)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Tell whether tensors that came as raw bytes hold no NaN and no infinity."""
    return all(
        bool(np.isfinite(tensor.data).all())
        for tensor in tensors
        if tensor.data.dtype.kind == "f"
    )


def _require_known_dtypes(signature: Signature) -> None:
    dtypes = {column.dtype for column in signature.columns}
    if signature.layout is not Layout.TABLE:
        dtypes.add(signature.dtype)
    if unknown := dtypes - KINDS.keys():
        raise UnsupportedSignature(f"Inputs of type {', '.join(unknown)} are unknown.")


def _rows_finite(rows: Sequence[Any]) -> bool:
    return all(
        math.isfinite(value)
        for row in rows
        for value in row
        if isinstance(value, float)
    )


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
    """Guess from the first brackets whether instances are arrays; only for speed."""
    start = body.find(b"[") + 1
    return start > 0 and body[start : start + 40].lstrip()[:1] == b"["


def _instances(request: dict[str, Any]) -> tuple[list[Any], bool, list[Problem]]:
    if "instances" in request and "inputs" in request:
        issue = "is another name of instances; send one of them"
        return [], False, [_problem("inputs", issue)]
    name = "inputs" if "inputs" in request else "instances"
    if name not in request:
        return [], False, [_problem("instances", "is required")]
    rows = request[name]
    if name == "inputs" and isinstance(rows, dict):
        return [rows], True, []
    if not isinstance(rows, list):
        return [], False, [_problem(name, "must be a list of instances")]
    if not rows:
        return [], False, [_problem(name, "must hold at least one instance")]
    return rows, False, []


def _check_parameters(given: Any) -> list[Problem]:
    if given is None:
        return []
    if not isinstance(given, dict):
        return [_problem("parameters", "must be an object")]
    return [
        _problem(f"parameters.{readable_name(name)}", "is no parameter of this model")
        for name in islice(given, MAX_PROBLEMS)
    ]


def _problem(field: str, issue: str) -> Problem:
    return Problem(issue=issue, field=field, code=ErrorCode.INVALID_INPUT)


def _refuse(problems: list[Problem]) -> NoReturn:
    raise with_facts(problems)


def _refuse_size(rows: int, max_rows: int, limit_name: str) -> NoReturn:
    raise ApiError(
        ErrorCode.TOO_LARGE,
        f"{rows} instances are more than the {max_rows} that one request may hold. "
        "Split them up, or send a batch or a job.",
        facts={"limit": limit_name, "maximum": max_rows},
    )


def _not_json(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_JSON, message)


def _refuse_constant(_name: str) -> NoReturn:
    raise _not_json("The body is not JSON: NaN and Infinity are not JSON numbers.")


def _parse_int(digits: str) -> float:
    # Python refuses to read very long integers; as doubles they are infinite.
    return int(digits) if len(digits) <= 310 else float(digits)
