"""A job's output as a file, streamed from its chunks.

What is committed decides every byte: two downloads of a finished job are the same,
whatever happened while it ran.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from inference.models import JobChunk, PredictionJob

_encoder = msgspec.json.Encoder()
_MEMBERS = ("label", "score", "low_confidence", "scores")


def as_json(job: PredictionJob) -> Iterator[bytes]:
    """Yield the answer of a batch call: predictions, null at bad rows, and errors."""
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
    yield from _join(predictions for _, predictions, _ in _chunks(job))
    yield b'],"errors":['
    yield from _join(errors for _, _, errors in _chunks(job))
    yield b"]}\n"


def errors_as_json(job: PredictionJob) -> Iterator[bytes]:
    """Yield the problems of all bad rows, in the order of the rows."""
    yield b'{"data":['
    yield from _join(errors for _, _, errors in _chunks(job))
    yield b"]}\n"


def as_csv(job: PredictionJob) -> Iterator[bytes]:
    """Yield one record per row: its index, the prediction's members, and its error.

    The members of the first prediction name the columns, others than those of a class
    in alphabetical order; a prediction without members
    has one column, `prediction`. Nested values are JSON.
    """
    names = _members(job)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", *(names or ["prediction"]), "error"])
    for start, predictions, errors in _chunks(job):
        issues: dict[int, list[str]] = {}
        for error in errors:
            issues.setdefault(error["index"], []).append(_issue(error))
        for index, prediction in enumerate(predictions, start):
            values = (
                [prediction]
                if names is None
                else [(prediction or {}).get(name) for name in names]
            )
            issue = "; ".join(issues.get(index, ()))
            writer.writerow([index, *(_cell(value) for value in values), issue])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    # Without a chunk the header is still to be sent.
    yield buffer.getvalue().encode()


def _chunks(job: PredictionJob) -> Iterator[tuple[int, list[Any], list[Any]]]:
    """Yield each chunk's first row, predictions and errors; one chunk in memory."""
    chunks = JobChunk.objects.filter(job=job).order_by("index")
    start = 0
    for rows, predictions, errors in chunks.values_list(
        "rows", "predictions", "errors"
    ).iterator(chunk_size=1):
        yield start, predictions, errors
        start += rows


def _members(job: PredictionJob) -> list[str] | None:
    for _, predictions, _ in _chunks(job):
        for prediction in predictions:
            if prediction is not None:
                return _in_order(prediction) if isinstance(prediction, dict) else None
    return None


def _in_order(prediction: dict[str, Any]) -> list[str]:
    """Order members as answers have them; databases keep no order of their own."""
    known = [name for name in _MEMBERS if name in prediction]
    return known + sorted(prediction.keys() - known)


def _join(lists: Iterator[list[Any]]) -> Iterator[bytes]:
    """Encode the items of many lists as those of one, without its brackets."""
    separator = b""
    for items in lists:
        if items:
            yield separator + _encoder.encode(items)[1:-1]
            separator = b","


def _cell(value: Any) -> Any:
    if isinstance(value, bool | dict | list):
        return _encoder.encode(value).decode()
    return value


def _issue(error: dict[str, Any]) -> str:
    return ": ".join(part for part in (error.get("field"), error["issue"]) if part)
