"""Read a file of rows line by line, and know where each line ends."""

from typing import Any, BinaryIO

from inference.errors.api_error import ApiError, ErrorCode, Problem

MAX_LINE_BYTES = 2 * 1024 * 1024
# One instance, as it would stand in `instances` of a request.
Row = Any

BOM = b"\xef\xbb\xbf"


class Lines:
    """Iterator over the lines of a file as text; `offset` is the byte after the last.

    Not a generator, because it must go on after it raised for an unreadable line.
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
    """A line or record that cannot be read as a row; the text says why."""


def invalid_input(message: str, *problems: Problem) -> ApiError:
    return ApiError(ErrorCode.INVALID_INPUT, message, details=problems)
