"""Tell what a version changes for callers of the version that a route has published."""

import json
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from registry.rules.contracts import Contract, Field
from registry.rules.optional_inputs import parameter

Level = Literal["same", "additive", "breaking"]
# The types that take every value of a column's type, too.
_WIDER = {
    "integer": ("long", "double"),
    "long": ("double",),
    "float": ("double",),
}


class Change(NamedTuple):
    """One difference: `additive` breaks no caller, `same` is no promise to callers."""

    level: Level
    # Names the field and both values.
    sentence: str
    # The input that callers could leave out, as masks name it: those who did notice
    # nothing. Empty: the change may concern all callers.
    optional: str = ""


def level_of(changes: Iterable[Change]) -> Level:
    """Return the gravest level; no change is `same`."""
    levels = {change.level for change in changes}
    if "breaking" in levels:
        return "breaking"
    return "additive" if "additive" in levels else "same"


def compare(published: Contract, candidate: Contract) -> list[Change]:
    """Return what callers of `published` would notice, in the order of its fields."""
    return [
        *_columns(published, candidate),
        *_tensors(published, candidate),
        *_pictures(published, candidate),
        *_outputs(published.outputs, candidate.outputs),
        *_params(published.params, candidate.params),
        *_labels(published, candidate),
        *_task(published, candidate),
    ]


def _columns(published: Contract, candidate: Contract) -> list[Change]:
    if candidate.columns and not published.columns:
        names = ", ".join(field.name for field in candidate.columns)
        return [Change("additive", f"Columns: had no names and now have: {names}.")]
    # The types of a tensor's columns are those of the tensor.
    of_tensors = bool(published.tensors and candidate.tensors)
    changes, old, new = [], _named(published.columns), _named(candidate.columns)
    for name, field in old.items():
        optional = "" if field.required else name
        if name not in new:
            changes += _only_if_used(optional, [_gone("Column", field)])
            continue
        label, now = f"Column {name}", new[name]
        changes += _requirement(label, field, now)
        types = [] if of_tensors else _type_of_input(label, field, now)
        changes += _only_if_used(optional, [*types, *_limits(label, field, now)])
    changes += [_new("Column", field) for name, field in new.items() if name not in old]
    return changes + _order("Columns", list(old), list(new))


def _tensors(published: Contract, candidate: Contract) -> list[Change]:
    changes, old, new = [], _named(published.tensors), _named(candidate.tensors)
    for name, field in old.items():
        if name not in new:
            changes.append(_gone("Input", field))
            continue
        label, now = f"Input {name}", new[name]
        changes += _another(label, "dtype", field.type, now.type)
        changes += _shape_of_input(label, field, now)
    for name, field in new.items():
        if name in old:
            continue
        # Callers who send named columns go on to do so.
        may = bool(published.columns and candidate.columns)
        changes.append(_new("Input", field, optional=may))
    return changes


def _pictures(published: Contract, candidate: Contract) -> list[Change]:
    if published.pictures == candidate.pictures:
        return []
    if candidate.pictures:
        return [Change("additive", "Pictures: are taken now.")]
    return [Change("breaking", "Pictures: were taken and are refused now.")]


def _outputs(old_fields: Iterable[Field], new_fields: Iterable[Field]) -> list[Change]:
    changes, old, new = [], _named(old_fields), _named(new_fields)
    for name, field in old.items():
        if name not in new:
            changes.append(_gone("Output", field))
            continue
        label, now = f"Output {name}", new[name]
        changes += _another(label, "type", field.type, now.type)
        changes += _another(label, "shape", _shape(field), _shape(now))
        if field.required and not now.required:
            changes.append(
                Change("breaking", f"{label}: was always there and becomes optional.")
            )
        elif now.required and not field.required:
            changes.append(
                Change("additive", f"{label}: was optional and is always there now.")
            )
    for name, field in new.items():
        if name in old:
            continue
        sentence = f"Output {name}: is new, of type {_told(field)}."
        if len(old) == 1:
            # The only output is answered as it is, several as an object.
            sentence = (
                f"Output {name}: is new, of type {_told(field)}, so that predictions "
                f"become objects; {next(iter(old))} was the only output."
            )
        changes.append(Change("breaking" if len(old) == 1 else "additive", sentence))
    return changes


def _params(old_fields: Iterable[Field], new_fields: Iterable[Field]) -> list[Change]:
    changes, old, new = [], _named(old_fields), _named(new_fields)
    for name, field in old.items():
        optional = "" if field.required else parameter(name)
        if name not in new:
            changes += _only_if_used(optional, [_gone("Parameter", field)])
            continue
        label, now = f"Parameter {name}", new[name]
        shapes = _another(label, "shape", _shape(field), _shape(now))
        changes += _only_if_used(
            optional, [*_type_of_input(label, field, now), *shapes]
        )
        changes += _requirement(label, field, now)
        if _json(field.default) != _json(now.default) and not now.required:
            sentence = f"the default {_json(field.default)} becomes"
            changes.append(Change("same", f"{label}: {sentence} {_json(now.default)}."))
    return changes + [
        _new("Parameter", field) for name, field in new.items() if name not in old
    ]


def _labels(published: Contract, candidate: Contract) -> list[Change]:
    old, new = published.labels, candidate.labels
    if bool(old) != bool(new):
        was, becomes = ", ".join(old) or "none", ", ".join(new) or "none"
        return [Change("breaking", f"Labels: {was} become {becomes}.")]
    gone = [
        Change("breaking", f"Label {label}: is gone; the labels are {', '.join(new)}.")
        for label in old
        if label not in new
    ]
    added = [
        Change("additive", f"Label {label}: is new; the labels were {', '.join(old)}.")
        for label in new
        if label not in old
    ]
    return [*gone, *added, *_order("Labels", old, new)]


def _task(published: Contract, candidate: Contract) -> list[Change]:
    return _another("Task", "task", published.task, candidate.task)


def _only_if_used(optional: str, changes: Iterable[Change]) -> list[Change]:
    """Say of changes that they concern only callers who use an optional input."""
    return [change._replace(optional=optional) for change in changes]


def _named(fields: Iterable[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def _gone(what: str, field: Field) -> Change:
    return Change("breaking", f"{what} {field.name}: is gone; it was {_told(field)}.")


def _new(what: str, field: Field, *, optional: bool = False) -> Change:
    if field.required and not optional:
        sentence = f"{what} {field.name}: is new and required, of type {_told(field)}."
        return Change("breaking", sentence)
    sentence = f"{what} {field.name}: is new and optional, of type {_told(field)}."
    if what == "Column":
        sentence += " Rows that are sent as arrays need a value or null for it."
    return Change("additive", sentence)


def _another(label: str, what: str, old: str, new: str) -> list[Change]:
    if old == new:
        return []
    return [Change("breaking", f"{label}: the {what} {old} becomes {new}.")]


def _type_of_input(label: str, old: Field, new: Field) -> list[Change]:
    if old.type == new.type:
        return []
    sentence = f"{label}: the type {old.type} becomes {new.type}"
    if _is_wider(new.type, than=old.type):
        return [Change("additive", f"{sentence}, which is wider.")]
    if _is_wider(old.type, than=new.type):
        return [Change("breaking", f"{sentence}, which is narrower.")]
    return [Change("breaking", f"{sentence}.")]


def _is_wider(kind: str, *, than: str) -> bool:
    nested = "array of "
    while kind.startswith(nested) and than.startswith(nested):
        kind, than = kind.removeprefix(nested), than.removeprefix(nested)
    return kind != than and (kind == "any" or kind in _WIDER.get(than, ()))


def _shape_of_input(label: str, old: Field, new: Field) -> list[Change]:
    if old.shape == new.shape:
        return []
    sentence = f"{label}: the shape {_shape(old)} becomes {_shape(new)}"
    before, after = old.shape or (), new.shape or ()
    pairs = list(zip(before, after, strict=False))
    if len(before) != len(after):
        return [Change("breaking", f"{sentence}.")]
    if all(now in (was, -1) for was, now in pairs):
        return [Change("additive", f"{sentence}, which is wider.")]
    if all(was in (now, -1) for was, now in pairs):
        return [Change("breaking", f"{sentence}, which is narrower.")]
    return [Change("breaking", f"{sentence}.")]


def _requirement(label: str, old: Field, new: Field) -> list[Change]:
    if new.required and not old.required:
        return [Change("breaking", f"{label}: was optional and becomes required.")]
    if old.required and not new.required:
        return [Change("additive", f"{label}: was required and becomes optional.")]
    return []


def _limits(label: str, old: Field, new: Field) -> list[Change]:
    changes = []
    for name in sorted(old.limits.keys() | new.limits.keys()):
        was, now = old.limits.get(name), new.limits.get(name)
        if was == now:
            continue
        level: Level = "additive" if _takes_more(name, was, now) else "breaking"
        sentence = f"{label}: {name} {_limit(was)} becomes {_limit(now)}."
        changes.append(Change(level, sentence))
    return changes


def _takes_more(name: str, was: Any, now: Any) -> bool:
    if was is None or now is None:
        return now is None
    if name == "enum":
        return {*map(repr, was)} <= {*map(repr, now)}
    return bool(now < was if name == "min" else now > was)


def _limit(value: Any) -> str:
    return "none" if value is None else _json(value)


def _order(what: str, old: Iterable[str], new: Iterable[str]) -> list[Change]:
    """Compare the order of the names that both have: lists of values depend on it."""
    before, after = list(old), list(new)
    common = set(before) & set(after)
    was = [name for name in before if name in common]
    now = [name for name in after if name in common]
    if was == now:
        # A new name in the middle moves those that follow it.
        moved = [name for name in after[: len(before)] if name not in common]
        if not moved or len(common) < len(before):
            return []
    order = f"the order {', '.join(before)} becomes {', '.join(after)}"
    return [Change("breaking", f"{what}: {order}; arrays of values depend on it.")]


def _told(field: Field) -> str:
    return field.type if field.shape is None else f"{field.type} {_shape(field)}"


def _shape(field: Field) -> str:
    return "none" if field.shape is None else str(list(field.shape))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
