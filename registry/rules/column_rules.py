"""Check whether rules for the values of columns fit the types of the columns.

`metadata.py` checks the JSON form of the rules.
"""

from typing import NamedTuple

from registry.mlflow.types import Json, input_name

# Prefixes of MLflow's names of column types and numpy's names of dtypes.
_WHOLE = ("long", "integer", "int", "uint")
_BROKEN = ("double", "float")
_TEXT = ("string", "str")
_KINDS = {"number": "numbers", "integer": "integers", "text": "text", "bytes": "bytes"}


class InputColumn(NamedTuple):
    name: str
    # MLflow's name of a column type, or numpy's name of a dtype.
    type: str
    required: bool

    @property
    def kind(self) -> str:
        """Return "number", "integer", "text", "bytes" or "other"."""
        if self.type.startswith(_WHOLE):
            return "integer"
        if self.type.startswith(_BROKEN):
            return "number"
        if self.type in _TEXT:
            return "text"
        return "bytes" if self.type == "binary" else "other"


def columns_of(metadata: Json, signature: Json) -> list[InputColumn]:
    """Return the columns as requests name them; none for tensors without names."""
    inputs = signature.get("inputs") or []
    if not inputs:
        return []
    if inputs[0].get("type") != "tensor":
        return [
            InputColumn(
                input_name(spec),
                str(spec.get("type", "")),
                bool(spec.get("required", True)),
            )
            for spec in inputs
        ]
    dtype = str(inputs[0].get("tensor-spec", {}).get("dtype", ""))
    names = map(str, metadata.get("columns") or [])
    return [InputColumn(name, dtype, True) for name in names]


def problems_of(rules: Json, columns: list[InputColumn]) -> list[str]:
    """Return what is wrong with rules: unknown columns, limits that fit no value."""
    by_name = {column.name: column for column in columns}
    problems = []
    for name, rule in rules.items():
        column = by_name.get(name)
        if column is None:
            problems.append(_unknown(name, columns))
            continue
        problems += [f"rules.{name}: {issue}" for issue in _issues(rule, column)]
    return problems


def problems_of_route(rules: Json, columns: list[InputColumn]) -> list[str]:
    """Check a route's rules, which may not make a required column optional."""
    return problems_of(rules, columns) + [
        f"rules.{column.name}: the model needs this column, so a route cannot make it "
        "optional."
        for column in columns
        if column.required and rules.get(column.name, {}).get("optional")
    ]


def _unknown(name: str, columns: list[InputColumn]) -> str:
    if not columns:
        return f"rules: the model has no column {name!r}; its inputs have no names."
    known = ", ".join(column.name for column in columns[:10])
    more = ", …" if len(columns) > 10 else ""
    return f"rules: the model has no column {name!r}. It has {known}{more}."


def _issues(rule: Json, column: InputColumn) -> list[str]:
    kind, issues = column.kind, []
    low, high = rule.get("min"), rule.get("max")
    if (low is not None or high is not None) and kind not in ("number", "integer"):
        issues.append(f"min and max are for numbers; the column is {column.type}.")
    if "max_length" in rule and kind not in ("text", "bytes"):
        issues.append(f"max_length is for text; the column is {column.type}.")
    if low is not None and high is not None and low > high:
        issues.append("min is greater than max.")
    choices = rule.get("enum")
    if choices is None:
        return issues
    if kind in ("bytes", "other"):
        issues.append(f"enum is for text and numbers; the column is {column.type}.")
        return issues
    unfit = [choice for choice in choices if not _fits(choice, kind)]
    if unfit:
        issues.append(f"enum must hold {_KINDS[kind]} only, like the column.")
    elif kind != "text" and any(
        (low is not None and choice < low) or (high is not None and choice > high)
        for choice in choices
    ):
        issues.append("enum holds values outside min and max.")
    return issues


def _fits(choice: object, kind: str) -> bool:
    if kind == "text":
        return isinstance(choice, str)
    if kind == "integer":
        return isinstance(choice, int) and not isinstance(choice, bool)
    return isinstance(choice, int | float) and not isinstance(choice, bool)
