"""Read what callers say of answers, and judge it: pure functions.

A measure is a number that is added up by version and day:

- `score` from 0 to 1, as the caller gave it, or 1 and 0 for `rating` up and down;
- `right`: 1 if the prediction was the true label, else 0;
- `error`: the distance of a predicted number from the true one;
- `value`: any number that the customer cares for.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from inference.errors import problems
from inference.errors.api_error import ErrorCode, Problem
from inference.errors.problems import problem

MOST_ITEMS = 100
MEASURES = ("score", "right", "error", "value")
_RATINGS = {"up": 1.0, "down": 0.0}
_LONGEST_LABEL = 200
# Request ids are of this form, whoever made them.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MOST_INDEX = 2**31 - 1
# Sums of such numbers stay finite.
_MOST_VALUE = 1e100
_KINDS = {str: "string", bool: "boolean", list: "array", dict: "object"}


class Item(msgspec.Struct, frozen=True):
    """What was said of one instance of one call."""

    request_id: str
    index: int
    # Numbers by measure.
    said: dict[str, float]


def read(value: Any) -> Item:
    """Read one item; raises ApiError INVALID_INPUT or UNPROCESSABLE."""
    if not isinstance(value, Mapping):
        raise problems.with_facts([_wrong("feedback", "must be an object", value)])
    found = [
        problem(str(name)[:_LONGEST_LABEL], "is not known here")
        for name in value.keys() - _MEMBERS
    ]
    request_id, index = value.get("request_id"), value.get("index", 0)
    if "request_id" not in value:
        found.append(problem("request_id", "is required"))
    elif not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        issue = "must be a text of 1 to 128 letters, digits and any of `._:-`"
        found.append(_wrong("request_id", issue, request_id))
    if not _is_number(index) or isinstance(index, float):
        found.append(_wrong("index", "must be a whole number", index))
    elif not 0 <= index <= _MOST_INDEX:
        found.append(_out_of_range("index", "is not the position of an instance"))
    said: dict[str, float] = {}
    for name, reads in _READERS.items():
        if name in value:
            found += reads(value, said)
    if not any(name in value for name in _READERS):
        names = ", ".join(f"`{name}`" for name in _READERS)
        found.append(problem("label", f"is missing: send one of {names}"))
    if "prediction" in value and "label" not in value:
        found.append(problem("prediction", "says something only beside `label`"))
    if found:
        raise problems.with_facts(found)
    return Item(str(request_id), int(index), said)


def score_of(said: Mapping[str, float]) -> float | None:
    """Return how good an answer was, from 0 to 1; None if nobody said that."""
    return said.get("score", said.get("right"))


def _read_label(value: Mapping[str, Any], said: dict[str, float]) -> list[Problem]:
    """Compare the true label with the prediction, so that neither is kept."""
    if "prediction" not in value:
        issue = (
            "is required beside `label`: answers are not stored, so send what the call "
            "predicted"
        )
        return [problem("prediction", issue)]
    wrong = []
    for name in ("label", "prediction"):
        given = value[name]
        is_text = isinstance(given, str) and len(given) <= _LONGEST_LABEL
        if not (is_text or isinstance(given, bool) or _is_number(given)):
            issue = (
                f"must be a text of at most {_LONGEST_LABEL} characters, a number, "
                "true or false"
            )
            wrong.append(_wrong(name, issue, given))
    if wrong:
        return wrong
    label, prediction = value["label"], value["prediction"]
    if _is_number(label) and _is_number(prediction):
        said["error"] = abs(float(label) - float(prediction))
    elif type(label) is type(prediction):
        said["right"] = float(label == prediction)
    else:
        return [_wrong("prediction", "must be of the same type as `label`", prediction)]
    return []


def _read_value(value: Mapping[str, Any], said: dict[str, float]) -> list[Problem]:
    if not _is_number(value["value"]):
        issue = f"must be a number from -{_MOST_VALUE:g} to {_MOST_VALUE:g}"
        return [_wrong("value", issue, value["value"])]
    said["value"] = float(value["value"])
    return []


def _read_rating(value: Mapping[str, Any], said: dict[str, float]) -> list[Problem]:
    rating = value["rating"]
    if not isinstance(rating, str) or rating not in _RATINGS:
        return [_wrong("rating", "must be `up` or `down`", rating)]
    said["score"] = _RATINGS[rating]
    return []


def _read_score(value: Mapping[str, Any], said: dict[str, float]) -> list[Problem]:
    score = value["score"]
    if not _is_number(score):
        return [_wrong("score", "must be a number from 0 to 1", score)]
    if not 0 <= score <= 1:
        return [_out_of_range("score", "must be from 0 to 1")]
    # It says more than a rating.
    said["score"] = float(score)
    return []


# In this order: a score replaces what a rating says.
_READERS: dict[str, Callable[[Mapping[str, Any], dict[str, float]], list[Problem]]] = {
    "label": _read_label,
    "value": _read_value,
    "rating": _read_rating,
    "score": _read_score,
}
_MEMBERS = frozenset(("request_id", "index", "prediction", *_READERS))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Neither infinity nor NaN is.
    return abs(value) <= _MOST_VALUE


def _wrong(name: str, issue: str, given: Any) -> Problem:
    kind = "null" if given is None else _KINDS.get(type(given), "number")
    return problem(name, issue, received=kind)


def _out_of_range(name: str, issue: str) -> Problem:
    return Problem(issue=issue, field=name, code=ErrorCode.UNPROCESSABLE)
