"""Export usage as CSV, without text that a spreadsheet runs as a formula."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.http import StreamingHttpResponse
from django.utils import timezone

from accounts.models import Usage
from accounts.usage import grains
from accounts.usage.reading import summed
from accounts.usage.spans import Span, days

CSV_COLUMNS = (
    "day",
    "customer",
    "key_id",
    "operation",
    "model",
    "version",
    "variant",
    "status",
    "code",
    *Usage.SUMS,
)
_CSV_KIND = ("customer__name", *CSV_COLUMNS[2:9])
# Also the full-width forms that Japanese keyboards type; see OWASP, "CSV Injection".
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def csv_rows(span: Span) -> Iterator[tuple[Any, ...]]:
    """Yield CSV_COLUMNS, then one row per day and kind of call.

    A day is read only when its rows are asked for, so that the file may be long.
    """
    yield CSV_COLUMNS
    for day in days(span):
        of_day = span.filter(at__gte=day, at__lt=day + grains.DAY)
        for kind, sums in sorted(summed(of_day, *_CSV_KIND).items()):
            yield (
                day.date().isoformat(),
                *(plain_text(value) for value in kind),
                *(sums[field] for field in Usage.SUMS),
            )


def plain_text(value: Any) -> Any:
    """Keep spreadsheets from reading text as a formula; numbers stay as they are."""
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"


class _Echo:
    """A file for csv.writer that returns each line at once."""

    def write(self, line: str) -> str:
        return line


def csv_response(selected: Span, *, name: str) -> StreamingHttpResponse:
    """Stream the selected usage as a CSV file, however large."""
    today = timezone.now().date().isoformat()
    return StreamingHttpResponse(
        write_lines(csv_rows(selected)),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}-{today}.csv"'},
    )


def write_lines(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    for row in rows:
        line: str = writer.writerow(row)
        yield line
