"""Reading a job's input: CSV or JSON Lines, row by row, from any row's first byte.

A row that cannot be read is a Problem; the rows after it are read all the same. Where
a row ends depends on the file alone, so a job that resumes at an offset sees the same
rows as one that never stopped.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn, Protocol

import msgspec

from inference.engine.signature import Column, Layout, Signature
from inference.errors import ApiError, ErrorCode, Problem

MAX_LINE_BYTES = 2 * 1024 * 1024
# A chunk of rows stays in memory as text, as values and as tensors.
MAX_CHUNK_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)

# The instance, as `instances` of a request would hold it, or why there is none.
Row = Any


class RowReader(Protocol):
    """Rows of one open file."""

    def rows(self, offset: int) -> Iterator[tuple[Row | Problem, int]]:
        """Yield each row from byte `offset` on (0: the first) and where it ends."""
        ...


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Consecutive rows; `ends[i]` is the byte after row i."""

    rows: list[Row | Problem] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def open_rows(file: BinaryIO, *, input_format: str, signature: Signature) -> RowReader:
    """Return the reader for a file's format; raise ApiError if its header is wrong."""
    if input_format == "csv":
        return CsvRows(file, signature)
    return JsonRows(file)


def read_chunk(reader: RowReader, offset: int, *, max_rows: int) -> RowChunk:
    """Read up to `max_rows` rows, fewer if they are large; none at the end."""
    chunk = RowChunk()
    for row, end in reader.rows(offset):
        chunk.rows.append(row)
        chunk.ends.append(end)
        if len(chunk.rows) >= max_rows or end - offset >= MAX_CHUNK_BYTES:
            break
    return chunk


def count_rows(
    reader: RowReader, *, max_rows: int, max_bytes: int | None = None
) -> int | None:
    """Count the rows; None if that takes more than `max_bytes` of the file.

    Raises ApiError: TOO_LARGE beyond `max_rows`, INVALID_INPUT without any row.
    """
    count = 0
    for _, end in reader.rows(0):
        count += 1
        if count > max_rows:
            raise ApiError(
                ErrorCode.TOO_LARGE, f"The input has more than {max_rows} rows."
            )
        if max_bytes is not None and end > max_bytes:
            return None
    if not count:
        raise _invalid("The input has no rows.", Problem("has no rows", field="file"))
    return count


class _Lines:
    """Lines of a file as text, and how far they have been read.

    An iterator of its own, not a generator: it goes on after a line it cannot read.
    """

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self.offset = offset
        file.seek(offset)
        if offset == 0 and file.read(len(_BOM)) == _BOM:
            self.offset = len(_BOM)
        file.seek(self.offset)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        self.offset += len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            self._skip_line()
            raise _Unreadable(f"is longer than {MAX_LINE_BYTES} bytes")
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise _Unreadable("is not UTF-8 text") from None

    def _skip_line(self) -> None:
        while rest := self._file.readline(MAX_LINE_BYTES):
            self.offset += len(rest)
            if rest.endswith(b"\n"):
                return


class _Unreadable(Exception):
    """A line or a record that is not a row; the text says why."""


class JsonRows:
    """One JSON instance per line; empty lines do not count."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def rows(self, offset: int) -> Iterator[tuple[Row | Problem, int]]:
        lines = _Lines(self._file, offset)
        while True:
            try:
                line = next(lines)
            except StopIteration:
                return
            except _Unreadable as error:
                yield Problem(str(error), code=ErrorCode.INVALID_INPUT), lines.offset
                continue
            if line.isspace():
                continue
            yield _instance(line), lines.offset


def _instance(line: str) -> Row | Problem:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        pass
    # The standard library also reads numbers beyond a double's range, which the
    # decoder then refuses by the name of their field.
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Problem("is not JSON", code=ErrorCode.INVALID_JSON)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class CsvRows:
    """CSV with a header, UTF-8 with or without BOM; empty lines do not count.

    Named columns may come in any order. For a tensor without names the header has one
    cell per element, in C order.
    """

    def __init__(self, file: BinaryIO, signature: Signature) -> None:
        self._file = file
        self._signature = signature
        lines = _Lines(file, 0)
        self._names = _read_header(lines)
        self._first_row = lines.offset
        self._columns = _match_columns(self._names, signature)

    def rows(self, offset: int) -> Iterator[tuple[Row | Problem, int]]:
        lines = _Lines(self._file, max(offset, self._first_row))
        records = csv.reader(lines)
        while True:
            try:
                cells = next(records)
            except StopIteration:
                return
            except (_Unreadable, csv.Error) as error:
                issue = str(error) if isinstance(error, _Unreadable) else "is not CSV"
                yield Problem(issue, code=ErrorCode.INVALID_INPUT), lines.offset
                continue
            if cells:
                yield self._row(cells), lines.offset

    def _row(self, cells: list[str]) -> Row | Problem:
        if len(cells) != len(self._names):
            return Problem(
                f"has {len(cells)} cells, the header has {len(self._names)}",
                code=ErrorCode.INVALID_INPUT,
            )
        if self._signature.layout is Layout.TENSOR:
            values = [_value(cell, self._signature.dtype) for cell in cells]
            return _nest(values, self._signature.shape)
        return {
            column.name: _value(cell, column.dtype)
            for column, cell in zip(self._columns, cells, strict=True)
            # An empty cell is a missing value; only text can be empty.
            if cell or (column.dtype == "str" and column.required)
        }


def _read_header(lines: _Lines) -> list[str]:
    try:
        for cells in csv.reader(lines):
            if cells:
                return [cell.strip() for cell in cells]
    except (_Unreadable, csv.Error) as error:
        issue = str(error) if isinstance(error, _Unreadable) else "is not CSV"
        raise _invalid(
            "The header of the file cannot be read. Save it as UTF-8 text with commas.",
            Problem(issue, field="file"),
        ) from error
    raise _invalid("The file is empty.", Problem("is empty", field="file"))


def _match_columns(names: list[str], signature: Signature) -> Sequence[Column]:
    """Return the column of each header cell; raise ApiError naming every misfit."""
    if signature.layout is Layout.TENSOR:
        size = math.prod(signature.shape)
        if len(names) != size:
            issue = f"has {len(names)} cells, the model takes {size} values per row"
            raise _invalid("The header is wrong.", Problem(issue, field="file"))
        return ()
    known = {column.name: column for column in signature.columns}
    problems = [
        Problem("is not a column of the model", field=name)
        for name in dict.fromkeys(names)
        if name not in known
    ]
    problems += [
        Problem("appears more than once", field=name)
        for name in known
        if names.count(name) > 1
    ]
    problems += [
        Problem("is missing", field=name)
        for name, column in known.items()
        if column.required and name not in names
    ]
    if problems:
        advice = (
            " Separate columns with commas."
            if len(names) == 1 and re.search("[;\t|]", names[0])
            else ""
        )
        raise _invalid(f"The header does not fit the model.{advice}", *problems[:100])
    return [known[name] for name in names]


def _value(cell: str, dtype: str) -> str | int | float | bool:
    """Read a cell as its column's type; as text if it is not, for the decoder to say.

    Python's own float() would also take `nan`, `infinity` and `1_000`.
    """
    if dtype == "str":
        return cell
    text = cell.strip()
    if dtype == "bool":
        return {"true": True, "1": True, "false": False, "0": False}.get(
            text.lower(), cell
        )
    if dtype.startswith(("int", "uint")) and _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else cell


def _nest(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Give a flat list a shape; `()` is the single value itself."""
    if not shape:
        return values[0]
    if len(shape) == 1:
        return values
    step = len(values) // shape[0]
    return [
        _nest(values[start : start + step], shape[1:])
        for start in range(0, len(values), step)
    ]


def _invalid(message: str, *problems: Problem) -> ApiError:
    return ApiError(ErrorCode.INVALID_INPUT, message, details=problems)
