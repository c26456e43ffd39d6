"""Read rows from CSV or JSON Lines, beginning at the first byte of any row.

A row that cannot be read is a Problem, and reading goes on with the next row. Where a
row ends depends on the file alone, so a job that resumes at an offset sees the same
rows as a job that never stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from inference.codecs.files.csv_files import CsvRows
from inference.codecs.files.lines import Lines, Row, Unreadable, invalid_input
from inference.codecs.strict_json import parse
from inference.engine.signatures.signature import Signature
from inference.errors.api_error import ApiError, ErrorCode, Problem

# A chunk of rows stays in memory as text, as values and as tensors.
MAX_CHUNK_BYTES = 8 * 1024 * 1024


class FileRows(Protocol):
    """Rows of one open file."""

    def rows(self, offset: int) -> Iterator[tuple[Row | Problem, int]]:
        """Yield each row from byte `offset` (0: the first row) on, and its end."""
        ...

    def ends(self) -> Iterator[int]:
        """Yield the end of each row; much cheaper than reading the rows."""
        ...


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Consecutive rows; `ends[i]` is the byte after row i."""

    rows: list[Row | Problem] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def open_rows(file: BinaryIO, *, input_format: str, signature: Signature) -> FileRows:
    """Return the reader for a file's format; raise ApiError if its header is wrong."""
    if input_format == "csv":
        return CsvRows(file, signature)
    return JsonRows(file)


def read_chunk(reader: FileRows, offset: int, *, max_rows: int) -> RowChunk:
    """Read up to `max_rows` rows: fewer if they are large, none at the end."""
    chunk = RowChunk()
    for row, end in reader.rows(offset):
        chunk.rows.append(row)
        chunk.ends.append(end)
        if len(chunk.rows) >= max_rows or end - offset >= MAX_CHUNK_BYTES:
            break
    return chunk


def count_rows(
    reader: FileRows, *, max_rows: int, max_bytes: int | None = None
) -> int | None:
    """Count the rows; None if that takes more than `max_bytes` of the file.

    Raises ApiError: TOO_LARGE beyond `max_rows`, INVALID_INPUT without any row.
    """
    count = 0
    for end in reader.ends():
        count += 1
        if count > max_rows:
            raise ApiError(
                ErrorCode.TOO_LARGE, f"The input has more than {max_rows} rows."
            )
        if max_bytes is not None and end > max_bytes:
            return None
    if not count:
        raise invalid_input(
            "The input has no rows.", Problem("has no rows", field="file")
        )
    return count


class JsonRows:
    """One JSON instance per line; empty lines do not count."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def rows(self, offset: int) -> Iterator[tuple[Row | Problem, int]]:
        for line, end in self._lines(offset):
            yield line if isinstance(line, Problem) else _instance(line), end

    def ends(self) -> Iterator[int]:
        return (end for _, end in self._lines(0))

    def _lines(self, offset: int) -> Iterator[tuple[str | Problem, int]]:
        lines = Lines(self._file, offset)
        while True:
            try:
                line = next(lines)
            except StopIteration:
                return
            except Unreadable as error:
                yield Problem(str(error), code=ErrorCode.INVALID_INPUT), lines.offset
                continue
            if not line.isspace():
                yield line, lines.offset


def _instance(line: str) -> Row | Problem:
    try:
        # Numbers beyond a double's range pass here: the decoder refuses them, and its
        # error names the field.
        return parse(line)
    except ApiError:
        return Problem("is not JSON", code=ErrorCode.INVALID_JSON)
