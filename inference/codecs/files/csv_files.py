"""Read CSV files as rows, with the types of a model's signature."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from inference.codecs.files.lines import Lines, Row, Unreadable, invalid_input
from inference.codecs.rows.values import readable_name
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import BYTES, DATETIME, JSON
from inference.errors.api_error import ErrorCode, Problem

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
# A longer integer is infinite as a double.
_INTEGER = re.compile(r"[+-]?\d{1,310}", re.ASCII)


class CsvRows:
    """Rows of a CSV file with a header, in UTF-8 with or without BOM.

    Empty lines do not count. Named columns may come in any order. For a tensor without
    names the header has one cell per element, in C order.
    """

    def __init__(self, file: BinaryIO, signature: Signature) -> None:
        self._file = file
        self._signature = signature
        lines = Lines(file, 0)
        self._names = _read_header(lines)
        self._first_row = lines.offset
        self._cells = [
            (
                column.name,
                _cell_reader(column.dtype),
                column.dtype == "str" and column.required,
            )
            for column in _match_columns(self._names, signature)
        ]

    def rows(self, offset: int) -> Iterator[tuple[Row | Problem, int]]:
        for cells, end in self._records(offset):
            yield cells if isinstance(cells, Problem) else self._row(cells), end

    def ends(self) -> Iterator[int]:
        return (end for _, end in self._records(0))

    def _records(self, offset: int) -> Iterator[tuple[list[str] | Problem, int]]:
        lines = Lines(self._file, max(offset, self._first_row))
        records = csv.reader(lines)
        while True:
            try:
                cells = next(records)
            except StopIteration:
                return
            except (Unreadable, csv.Error) as error:
                yield (
                    Problem(what_is_wrong(error), code=ErrorCode.INVALID_INPUT),
                    lines.offset,
                )
                continue
            if cells:
                yield cells, lines.offset

    def _row(self, cells: list[str]) -> Row | Problem:
        if len(cells) != len(self._names):
            return Problem(
                f"has {len(cells)} cells, the header has {len(self._names)}",
                code=ErrorCode.INVALID_INPUT,
            )
        if self._signature.layout is Layout.TENSOR:
            read = _cell_reader(self._signature.dtype)
            return _nest([read(cell) for cell in cells], self._signature.shape)
        return {
            name: read(cell)
            for (name, read, may_be_empty), cell in zip(self._cells, cells, strict=True)
            # An empty cell is a missing value; only text can be empty.
            if cell or may_be_empty
        }


def _read_header(lines: Lines) -> list[str]:
    try:
        for cells in csv.reader(lines):
            if cells:
                return cells
    except (Unreadable, csv.Error) as error:
        raise invalid_input(
            "The header of the file cannot be read. Save it as UTF-8 text with commas, "
            "and lines that end with a line feed.",
            Problem(what_is_wrong(error), field="file"),
        ) from error
    raise invalid_input("The file is empty.", Problem("is empty", field="file"))


def what_is_wrong(error: Exception) -> str:
    """Describe an unreadable record; csv's own texts name options of its reader."""
    if isinstance(error, Unreadable):
        return str(error)
    if "new-line character" in str(error):
        return "has a carriage return outside of quotes; end lines with a line feed"
    if "field larger" in str(error):
        return f"has a cell of more than {csv.field_size_limit()} characters"
    return "is not CSV"


def _match_columns(cells: list[str], signature: Signature) -> Sequence[Column]:
    """Return the column of each header cell; raise ApiError with every wrong cell."""
    if signature.layout is Layout.TENSOR:
        size = math.prod(signature.shape)
        if len(cells) != size:
            issue = f"has {len(cells)} cells, the model takes {size} values per row"
            raise invalid_input("The header is wrong.", Problem(issue, field="file"))
        return ()
    known = {column.name: column for column in signature.columns}
    # A header cell matches a column exactly, or else without blanks around both names.
    trimmed = {name.strip(): name for name in known} | {name: name for name in known}
    names = [
        cell if cell in known else trimmed.get(cell.strip(), cell.strip())
        for cell in cells
    ]
    problems = [
        Problem(
            "has no name in the header; pandas writes its index so, unless index=False",
            field=f"column {position}",
        )
        for position, name in enumerate(names, 1)
        if not name and name not in known
    ]
    problems += [
        Problem("is not a column of the model", field=readable_name(name))
        for name in dict.fromkeys(names)
        if name and name not in known
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
        raise invalid_input(
            f"The header does not fit the model.{advice}", *problems[:100]
        )
    return [known[name] for name in names]


# Reads a cell as its column's type. A cell that does not fit stays text: the decoder
# then says what is wrong with it.
_ReadCell = Callable[[str], str | int | float | bool]


def _cell_reader(dtype: str) -> _ReadCell:
    if dtype in ("str", JSON):
        # JSON columns take any type, but reading a number could change the text: 007
        # would lose its zeros, and 2**53 + 1 a digit.
        return str
    if dtype in (BYTES, DATETIME):
        # Text that looks like a number stays text: 20261120 is a day.
        return str.strip
    if dtype == "bool":
        return _read_bool
    return _read_integer if dtype.startswith(("int", "uint")) else _read_number


def _read_bool(cell: str) -> str | bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    return words.get(cell.strip().lower(), cell)


def _read_integer(cell: str) -> str | int | float:
    text = cell.strip()
    return int(text) if _INTEGER.fullmatch(text) else _read_number(cell)


def _read_number(cell: str) -> str | float:
    try:
        number = float(cell)
    except ValueError:
        return cell
    # float() also takes `nan`, `infinity`, `1_000` and digits of other scripts, which
    # stay text. A number that is only too large passes; the decoder refuses it.
    if math.isfinite(number) and "_" not in cell and cell.isascii():
        return number
    return number if _NUMBER.fullmatch(cell.strip()) else cell


def _nest(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Nest a flat list into a shape; for `()` return the single value itself."""
    if not shape:
        return values[0]
    if len(shape) == 1:
        return values
    step = len(values) // shape[0]
    return [
        _nest(values[start : start + step], shape[1:])
        for start in range(0, len(values), step)
    ]
