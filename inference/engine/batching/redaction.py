"""Take the values of rows out of a model's error text.

Exceptions quote what they failed on, and logs must not hold customers' data. The rule:
a text that is a value is replaced; so is each word of four letters or more out of a
longer text, and each number that a row holds, rounded or not. This removes more than
the values: "5 columns" loses its 5 if a row holds a 5.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from inference.engine.wire.dtypes import DATETIME
from inference.engine.wire.tensors import Array, Tensor

REDACTED = "[…]"
MOST_MESSAGE = 500
# A longer message is not searched, and not logged.
_MOST_TEXT = 100_000
_SHORT_WORD = 4
_NUMBER = re.compile(r"(?<!\w)[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?!\w)")
_WORD = re.compile(r"\w+")


def redacted(text: str, batches: Iterable[Sequence[Tensor]]) -> str:
    """Return the start of a text without the values of rows."""
    if len(text) > _MOST_TEXT:
        return f"(a message of {len(text)} characters)"
    rows = [tensor.data for tensors in batches for tensor in tensors]
    text = _without_texts(text, {one for data in rows for one in _texts(data)})
    return _without_numbers(text, rows)[:MOST_MESSAGE]


def _without_texts(text: str, values: set[str]) -> str:
    present = set(_WORD.findall(text))
    words: set[str] = set()
    for value in sorted(values, key=len, reverse=True):
        if not value.strip():
            continue
        found = _WORD.findall(value)
        words.update(
            word for word in found if len(word) >= _SHORT_WORD or word == value
        )
        if found == [value]:
            continue
        # As an exception may quote it: as it is, or as Python writes it. Signs alone,
        # such as "?", count only in quotes.
        quoted = repr(value)
        for form in (value, value.strip(), quoted[1:-1]) if found else (quoted,):
            text = text.replace(form, REDACTED)
    hidden = words & present
    if not hidden:
        return text
    return _WORD.sub(lambda one: REDACTED if one[0] in hidden else one[0], text)


def _without_numbers(text: str, rows: Sequence[Array]) -> str:
    numbers = [found for data in rows if (found := _numbers(data)) is not None]

    def hide(match: re.Match[str]) -> str:
        value = abs(float(match[0]))
        mantissa, _, exponent = match[0].lower().partition("e")
        decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
        # As far as the number in the text may have been rounded or cut.
        near = 10.0 ** -min(max(decimals, -300), 300)
        held = any(bool((np.abs(one - value) < near).any()) for one in numbers)
        return REDACTED if held else match[0]

    return _NUMBER.sub(hide, text) if numbers else text


def _texts(data: Array) -> Iterator[str]:
    if data.dtype.kind == "M":
        moments: Any = np.datetime_as_string(data.ravel().astype(DATETIME))
        for text in moments.tolist():
            # As numpy writes it, as pandas does, and the day and the time alone.
            yield from (text, text.replace("T", " ")[:19], text[:10], text[11:19])
    elif data.dtype.kind == "O":
        yield from _leaves(data.ravel().tolist(), str)


def _numbers(data: Array) -> Any:
    if data.dtype.kind in "iufb":
        return np.abs(data.astype(np.float64).ravel())
    if data.dtype.kind == "O":
        found = list(_leaves(data.ravel().tolist(), (int, float)))
        try:
            return np.abs(np.array(found, np.float64)) if found else None
        except OverflowError:
            return np.abs(np.array([float(str(one)) for one in found]))
    return None


def _leaves(value: Any, kind: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(name, kind)
            yield from _leaves(item, kind)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, kind)
    elif isinstance(value, kind):
        yield value
