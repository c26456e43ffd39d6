"""Make rows like those of a version's example, for checks that need several."""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.engine.signatures import example
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import BYTES, DATETIME, JSON, OBJECT_DTYPES, TEXT
from inference.engine.wire.tensors import Array, Tensor, object_array

# Rows among which different ones are looked for.
_LOOKED_AT = 64
# Kinds of numpy's dtypes that may be varied: first all, then those that models are
# less likely to refuse.
_BOLDNESS = ("fiubMO", "fiubM", "f")
# How far a float is moved, relative to its size; rows take turns.
_STRENGTHS = (0.1, 0.5, 1.0, 2.0)
_DAYS = 300
_A_DAY = "2024-01-01"


def distinct(tensors: Sequence[Tensor], most: int) -> list[int]:
    """Return the places of up to `most` different rows, at even distances."""
    places = _spread(tensors, min(len(tensors[0].data), _LOOKED_AT))
    found: dict[Any, int] = {}
    for place in places:
        rows = [tensor.data[place : place + 1] for tensor in tensors]
        key = [
            repr(row.tolist()) if row.dtype == object else row.tobytes() for row in rows
        ]
        found.setdefault(tuple(key), place)
    kept = [*found.values()]
    chosen = np.linspace(0, len(kept) - 1, min(most, len(kept))).round()
    return [kept[int(place)] for place in chosen]


def take(tensors: Sequence[Tensor], places: Sequence[int]) -> tuple[Tensor, ...]:
    """Copy some rows, so that a model may change what it gets."""
    return tuple(
        Tensor(
            tensor.name,
            # Values of objects may be lists and objects, which a model can change.
            copy.deepcopy(tensor.data[list(places)])
            if tensor.data.dtype == object
            else tensor.data[list(places)],
        )
        for tensor in tensors
    )


def longer(
    tensors: Sequence[Tensor], signature: Signature, path: Path, *, rows: int
) -> Iterator[tuple[Tensor, ...]]:
    """Add rows until there are `rows`: of the background sample, or made up.

    A model may refuse rows that are made up, so several batches are offered, the most
    varied first.
    """
    given = len(tensors[0].data)
    background = _background(tensors, signature, path)
    if background is not None:
        yield _join(tensors, take(background, _spread(background, rows - given)))
    made_before = None
    for kinds in _BOLDNESS:
        made = tuple(
            Tensor(tensor.name, _varied(tensor, signature, kinds, rows - given))
            for tensor in tensors
        )
        shown = [tensor.data.tolist() for tensor in made]
        if len(distinct(made, 2)) > 1 and repr(shown) != made_before:
            made_before = repr(shown)
            yield _join(tensors, made)


def plain_row(signature: Signature) -> tuple[Tensor, ...] | None:
    """Return a row of plain values, where there is no example; None for objects."""
    if signature.layout is Layout.TABLE:
        columns = signature.columns
        if any(column.dtype == JSON for column in columns):
            return None
        return tuple(
            Tensor(column.name, example.column_array([_plain(column)], column.carrier))
            for column in columns
        )
    tensors = []
    for each in signature.engine_inputs:
        shape = (1, *(example.OPEN_SIZE if size == -1 else size for size in each.shape))
        if each.dtype in OBJECT_DTYPES and each.dtype != TEXT:
            return None
        filled = np.full(shape, "a", dtype=object) if each.dtype == TEXT else None
        if filled is None:
            filled = np.zeros(shape, dtype=each.dtype)
        tensors.append(Tensor(each.name, filled))
    return tuple(tensors)


def _plain(column: Column) -> Any:
    if column.enum:
        return column.enum[0]
    if column.dtype == TEXT:
        return "a"
    if column.dtype == BYTES:
        return ""
    if column.dtype == DATETIME:
        return _A_DAY
    if column.dtype == "bool":
        return False
    return 0 if column.minimum is None else column.minimum


def _spread(tensors: Sequence[Tensor], rows: int) -> list[int]:
    """Choose rows at even distances, because samples are often sorted."""
    last = len(tensors[0].data) - 1
    return [int(place) for place in np.linspace(0, last, rows).round()]


def _join(first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(one.name, np.concatenate([one.data, other.data]))
        for one, other in zip(first, second, strict=True)
    )


def _varied(tensor: Tensor, signature: Signature, kinds: str, rows: int) -> Array:
    """Make rows from those of a tensor, always the same for the same tensor."""
    places = np.arange(rows) % len(tensor.data)
    [copied] = take([tensor], places.tolist())
    data = copied.data
    mask = signature.padding.mask_input if signature.padding else ""
    if data.dtype.kind not in kinds or (mask and tensor.name == mask):
        return data
    random = np.random.default_rng(0)
    columns = {column.name: column for column in signature.columns}
    column = columns.get(tensor.name)
    if column is not None and column.enum:
        choices = [column.enum[place % len(column.enum)] for place in range(rows)]
        return example.column_array(choices, column.carrier)
    kind = data.dtype.kind
    if kind == "O":
        texts = [_shortened(value, random) for value in data.ravel().tolist()]
        return object_array(texts).reshape(data.shape)
    if kind == "b":
        return random.random(data.shape) < 0.5
    if kind == "M":
        days = random.integers(-_DAYS, _DAYS, data.shape)
        moved: Array = data + days.astype("timedelta64[D]")
        return moved
    if kind in "iu":
        # Between 0 and the value: these are valid codes and indexes if it is one.
        ends = data.astype(np.int64, copy=False)
        part = random.random(data.shape)
        numbers: Any = (part * (np.abs(ends) + 1)).astype(np.int64) * np.sign(ends)
    else:
        strengths = np.resize(_STRENGTHS, rows).reshape(-1, *[1] * (data.ndim - 1))
        moves = random.uniform(-1, 1, data.shape) * strengths
        numbers = data + moves * np.maximum(np.abs(data), 1)
    # numpy 1 clips by at least one bound.
    if column is not None and (column.minimum, column.maximum) != (None, None):
        numbers = np.clip(numbers, column.minimum, column.maximum)
    return np.asarray(numbers).astype(data.dtype)


def _shortened(value: Any, random: np.random.Generator) -> Any:
    if not isinstance(value, str) or len(value) < 2:
        # A single letter becomes another one.
        return value and random.choice([*"abcdef"]).item() if value == "a" else value
    return value[: random.integers(1, len(value) + 1)]


def _background(
    tensors: Sequence[Tensor], signature: Signature, path: Path
) -> tuple[Tensor, ...] | None:
    """Return the rows of the background sample for explanations, if they fit."""
    if signature.background is None:
        return None
    file = (path / signature.background).resolve()
    if not file.is_relative_to(path.resolve()) or not file.is_file():
        return None
    names = [column.name for column in signature.columns]
    try:
        example.check_size(file)
        if file.suffix == ".npy":
            values = np.load(file, allow_pickle=False)
        else:
            rows = [
                [row[name] for name in names] if isinstance(row, dict) else row
                for row in json.loads(file.read_bytes())
            ]
            values = np.array(rows, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
            return None
        if signature.layout is not Layout.TABLE:
            [only] = tensors
            return (Tensor(only.name, values.astype(only.data.dtype)),)
        return tuple(
            Tensor(
                tensor.name,
                values[:, names.index(tensor.name)].astype(tensor.data.dtype),
            )
            for tensor in tensors
        )
    # Only explanations need it, and they say what is wrong with it.
    except (OSError, ValueError, KeyError, TypeError):
        return None
