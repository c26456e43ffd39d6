"""Stream a job's output as a file from its chunks.

The file depends only on committed chunks: two downloads of a finished job are equal.
"""

import csv
import io
from collections.abc import Iterator, Set
from typing import Any

import msgspec

from accounts.usage import export
from inference.models import JobChunk, PredictionJob

_encoder = msgspec.json.Encoder()
_MEMBERS = ("label", "score", "low_confidence", "scores")
_PREDICTION = "prediction"
_OWN_COLUMNS = frozenset({"index", _PREDICTION, "error"})
_MAX_COLUMNS = 1000


def as_json(job: PredictionJob) -> Iterator[bytes]:
    """Yield JSON as of a batch call: predictions, null for bad rows, and errors."""
    facts = {
        "job_id": job.pk,
        "status": job.status,
        "model": {
            "name": job.model,
            "version": str(job.version),
            "variant": job.variant,
        },
    }
    yield _encoder.encode(facts)[:-1] + b',"predictions":['
    yield from _join(_lists(job, "predictions"))
    yield b'],"errors":['
    yield from _join(_lists(job, "errors"))
    # As in calls, only if there are warnings.
    warnings = _join(_lists(job, "warnings"))
    first = next(warnings, None)
    if first is not None:
        yield b'],"warnings":[' + first
        yield from warnings
    yield b"]}\n"


def errors_as_json(job: PredictionJob) -> Iterator[bytes]:
    """Yield the problems of all bad rows, in the order of the rows."""
    yield b'{"data":['
    yield from _join(_lists(job, "errors"))
    yield b"]}\n"


def as_csv(job: PredictionJob) -> Iterator[bytes]:
    """Yield one record per row: its index, the prediction's members, and its error.

    Each member of any prediction is a column: label and scores first, others in order
    of appearance. Predictions without members, or with too many, are in the column
    `prediction`; warnings, if there are any, in the column `warning`. Nested values are
    JSON. Text that a spreadsheet would read as a formula gets an apostrophe before it.
    """
    columns = _columns(job)
    has_warnings = any(_lists(job, "warnings"))
    own = _OWN_COLUMNS | {"warning"} if has_warnings else _OWN_COLUMNS
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    headings = (_PREDICTION if one is None else _heading(one, own) for one in columns)
    writer.writerow(["index", *headings, "error", *(["warning"] * has_warnings)])
    for start, predictions, errors, warned in _chunks(job):
        warnings = {one["index"]: one["code"] for one in warned}
        issues: dict[int, list[str]] = {}
        for error in errors:
            issues.setdefault(error["index"], []).append(_issue(error))
        for index, prediction in enumerate(predictions, start):
            values = (_cell(_value(prediction, one, columns)) for one in columns)
            issue = "; ".join(issues.get(index, ()))
            warning = [warnings.get(index, "")] if has_warnings else []
            writer.writerow([index, *values, export.plain_text(issue), *warning])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    # Without any chunk, the header was not sent yet.
    yield buffer.getvalue().encode()


def _chunks(
    job: PredictionJob,
) -> Iterator[tuple[int, list[Any], list[Any], list[Any]]]:
    """Yield each chunk's first row, predictions, errors, warnings; one at a time."""
    chunks = JobChunk.objects.filter(job=job).order_by("index")
    start = 0
    for rows, *lists in chunks.values_list(
        "rows", "predictions", "errors", "warnings"
    ).iterator(chunk_size=1):
        yield start, *lists
        start += rows


def _lists(job: PredictionJob, name: str) -> Iterator[list[Any]]:
    """Yield only each chunk's predictions, errors or warnings; one at a time."""
    chunks = JobChunk.objects.filter(job=job).order_by("index")
    return chunks.values_list(name, flat=True).iterator(chunk_size=1)


def _columns(job: PredictionJob) -> list[str | None]:
    """Return the members of all predictions; None stands for a whole prediction."""
    names: dict[str, None] = {}
    has_whole = False
    for predictions in _lists(job, "predictions"):
        for prediction in predictions:
            if not isinstance(prediction, dict):
                has_whole = has_whole or prediction is not None
            elif not prediction.keys() <= names.keys():
                # Databases do not keep the order of members within a prediction.
                names |= dict.fromkeys(sorted(prediction))
        if len(names) > _MAX_COLUMNS:
            return [None]
    if not names:
        return [None]
    known = [name for name in _MEMBERS if name in names]
    others = [name for name in names if name not in _MEMBERS]
    return [*([None] if has_whole else []), *known, *others]


def _value(prediction: Any, column: str | None, columns: list[str | None]) -> Any:
    if column is None:
        # If members have no columns, an object is written as a whole too.
        is_split = isinstance(prediction, dict) and columns != [None]
        return None if is_split else prediction
    return prediction.get(column) if isinstance(prediction, dict) else None


def _heading(member: str, own: Set[str]) -> str:
    """Return the heading of a member's column, prefixed if our own column has it."""
    if member in own:
        member = f"{_PREDICTION}.{member}"
    heading: str = export.plain_text(member)
    return heading


def _join(lists: Iterator[list[Any]]) -> Iterator[bytes]:
    """Encode many lists as one JSON list without its brackets."""
    separator = b""
    for items in lists:
        if items:
            yield separator + _encoder.encode(items)[1:-1]
            separator = b","


def _cell(value: Any) -> Any:
    if isinstance(value, bool | dict | list):
        return _encoder.encode(value).decode()
    return export.plain_text(value)


def _issue(error: dict[str, Any]) -> str:
    return ": ".join(part for part in (error.get("field"), error["issue"]) if part)
