"""Check the `parameters` of a request against the model's signature."""

from typing import Any

from inference.codecs.rows.times import in_utc
from inference.codecs.rows.values import check_value, readable_name, type_name
from inference.engine.signatures.signature import Column, Param
from inference.engine.wire.dtypes import BYTES, DATETIME
from inference.errors.api_error import ErrorCode, Problem
from inference.errors.problems import MAX_PROBLEMS, problem

# Longest list that one parameter may be.
_MAX_VALUES = 10_000


class ParameterReader:
    """Checks the parameters of one model version."""

    def __init__(self, params: tuple[Param, ...]) -> None:
        self._params = {param.name: param for param in params}

    def read(self, given: Any) -> tuple[dict[str, Any], list[Problem]]:
        """Return the parameters that the caller set, and what is wrong with them.

        A parameter that is not set stays out: the model has its default. Bytes stay
        base64; times become ISO 8601 in UTC.
        """
        if given is None:
            return {}, []
        if not isinstance(given, dict):
            return {}, [problem("parameters", "must be an object")]
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, value in given.items():
            if len(problems) >= MAX_PROBLEMS:
                break
            field = f"parameters.{readable_name(name)}"
            param = self._params.get(name)
            if param is None:
                problems.append(problem(field, "is not a parameter of this model"))
                continue
            values[name], found = _check(value, param, field)
            problems += found
        return values, problems


def _check(value: Any, param: Param, field: str) -> tuple[Any, list[Problem]]:
    if param.shape is None:
        return _check_one(value, param, field)
    if not isinstance(value, list):
        return None, [problem(field, "must be a list", received=type_name(value))]
    if len(value) > _MAX_VALUES:
        return None, [rule(field, f"must have at most {_MAX_VALUES} values")]
    if param.shape[0] >= 0 and len(value) != param.shape[0]:
        return None, [problem(field, f"must have {param.shape[0]} values")]
    checked = []
    for position, item in enumerate(value):
        one, found = _check_one(item, param, f"{field}[{position}]")
        if found:
            return None, found
        checked.append(one)
    return checked, []


def _check_one(value: Any, param: Param, field: str) -> tuple[Any, list[Problem]]:
    if value is None and param.default is None:
        return None, []
    column = Column(param.name, param.dtype, json_schema=param.json_schema)
    checked, issue, code = check_value(value, column)
    if issue and code is ErrorCode.INVALID_INPUT:
        return None, [problem(field, issue, received=type_name(value))]
    if issue:
        return None, [rule(field, issue)]
    if param.dtype == DATETIME:
        return in_utc(checked).isoformat(), []
    return value if param.dtype == BYTES else checked, []


def rule(field: str, issue: str) -> Problem:
    return Problem(issue=issue, field=field, code=ErrorCode.UNPROCESSABLE)
