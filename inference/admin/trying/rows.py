"""Read the rows of a CSV file that a person tries out."""

from typing import Any, BinaryIO

from inference.codecs.files.csv_files import CsvRows
from inference.codecs.files.lines import invalid_input
from inference.engine.signatures.signature import Layout, Signature
from inference.errors.api_error import Problem

MOST_ROWS = 1000
MOST_BYTES = 5 * 1024 * 1024


def takes_files(signature: Signature) -> bool:
    """Return whether rows can be lines of a CSV file."""
    if signature.columns:
        return True
    one_size = all(size >= 0 for size in signature.shape)
    return signature.layout is Layout.TENSOR and signature.image is None and one_size


def read(file: BinaryIO, signature: Signature) -> list[Any]:
    """Return the instances of a file.

    Raise ApiError if the header does not fit, a line cannot be read, or there are no
    rows or too many. The values are checked by the call.
    """
    instances: list[Any] = []
    for number, (row, _) in enumerate(CsvRows(file, signature).rows(0), start=1):
        if number > MOST_ROWS:
            raise invalid_input(f"The file has more than {MOST_ROWS:,} rows.")
        if isinstance(row, Problem):
            raise invalid_input(f"Row {number} {row.issue}.")
        instances.append(row)
    if not instances:
        raise invalid_input("The file has a header, and no rows.")
    return instances
