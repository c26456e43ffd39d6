"""Put the rows of a table from a Python model into the order of its input's rows."""

from typing import Any

_SHOWN_LABELS = 3


def in_order(table: Any, rows: int) -> Any:
    """Return a Series or DataFrame with the rows in the order of the input's.

    The input's index is 0 to `rows - 1`. Models sort, split and join their rows, and
    pandas keeps the labels. Raises ValueError for other labels: they do not say which
    row of the input, and so which caller, a row belongs to.
    """
    index = table.index
    # Another number of rows is refused later, with its own words.
    if len(index) != rows or _is_range(index):
        return table
    labels = index.tolist()
    if all(type(label) in (int, float) for label in labels):
        order = sorted(range(rows), key=labels.__getitem__)
        if [labels[place] for place in order] == [*range(rows)]:
            return table.iloc[order]
    shown = ", ".join(
        f"{label!r}"[:40] if isinstance(label, str) else str(label)[:40]
        for label in labels[:_SHOWN_LABELS]
    )
    raise ValueError(
        f"The model labelled its rows {shown}{', …' if rows > _SHOWN_LABELS else ''} "
        f"instead of 0 to {rows - 1}, the labels of its input, so nobody knows which "
        "input each row answers. Return the index of the input, or an array in its "
        "order."
    )


def _is_range(index: Any) -> bool:
    """Return whether an index counts up from 0, by the fields of pandas' RangeIndex."""
    return getattr(index, "start", None) == 0 and getattr(index, "step", None) == 1
