"""Find the instances in a parsed request, and check its other members."""

from itertools import islice
from typing import Any

from inference.codecs.rows.values import readable_name
from inference.errors.api_error import Problem
from inference.errors.problems import MAX_PROBLEMS, problem

_MEMBERS = frozenset({"instances", "inputs", "parameters", "options", "model"})


def find_instances(request: dict[str, Any]) -> tuple[list[Any], bool, list[Problem]]:
    """Return the rows, whether a single object was sent, and the problems found."""
    if "instances" in request and "inputs" in request:
        issue = "is another name of instances; send one of them"
        return [], False, [problem("inputs", issue)]
    name = "inputs" if "inputs" in request else "instances"
    if name not in request:
        return [], False, [problem("instances", "is required")]
    rows = request[name]
    if name == "inputs" and isinstance(rows, dict):
        return [rows], True, []
    if not isinstance(rows, list):
        return [], False, [problem(name, "must be a list of instances")]
    if not rows:
        return [], False, [problem(name, "must hold at least one instance")]
    return rows, False, []


def unknown_members(request: dict[str, Any]) -> list[Problem]:
    unknown = (name for name in request if name not in _MEMBERS)
    return [
        problem(readable_name(name), "is not a member of a request")
        for name in islice(unknown, MAX_PROBLEMS)
    ]


def check_model(given: Any) -> list[Problem]:
    if given is None or isinstance(given, str):
        return []
    return [problem("model", "must be a string")]
