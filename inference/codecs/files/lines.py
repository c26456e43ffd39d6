"""Lines of a job's input file, and where each of them ends. Pure."""

from typing import Any, BinaryIO

from inference.errors.api_error import ApiError, ErrorCode, Problem

MAX_LINE_BYTES = 2 * 1024 * 1024
# The instance, as `instances` of a request would hold it.
Row = Any

BOM = b"\xef\xbb\xbf"


class Lines:
    """Lines of a file as text, and how far they have been read.

    An iterator of its own, not a generator: it goes on after a line it cannot read.
    """

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self.offset = offset
        file.seek(offset)
        if offset == 0 and file.read(len(BOM)) == BOM:
            self.offset = len(BOM)
        file.seek(self.offset)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        self.offset += len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            self._skip_line()
            raise Unreadable(f"is longer than {MAX_LINE_BYTES} bytes")
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise Unreadable("is not UTF-8 text") from None

    def _skip_line(self) -> None:
        while rest := self._file.readline(MAX_LINE_BYTES):
            self.offset += len(rest)
            if rest.endswith(b"\n"):
                return


class Unreadable(Exception):
    """A line or a record that is not a row; the text says why."""


def invalid_input(message: str, *problems: Problem) -> ApiError:
    return ApiError(ErrorCode.INVALID_INPUT, message, details=problems)
