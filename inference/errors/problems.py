"""Combine the problems of a request's fields into one error."""

from collections.abc import Sequence
from typing import NoReturn

import msgspec

from inference.errors.api_error import ApiError, ErrorCode, Problem

MAX_PROBLEMS = 100


def problem(field: str, issue: str, *, received: str | None = None) -> Problem:
    return Problem(
        issue=issue, field=field, code=ErrorCode.INVALID_INPUT, received=received
    )


def with_facts(problems: Sequence[Problem], *, cut_off: bool = False) -> ApiError:
    """Return the error for these problems: 422 only if all of them are broken rules.

    `cut_off` means that not all rows were read.
    """
    rules_only = all(problem.code is ErrorCode.UNPROCESSABLE for problem in problems)
    code = ErrorCode.UNPROCESSABLE if rules_only else ErrorCode.INVALID_INPUT
    details = tuple(msgspec.structs.replace(p, code=None) for p in shown(problems))
    message = summary(problems, cut_off=cut_off)
    return ApiError(code, message, details=details)


def shown(problems: Sequence[Problem]) -> Sequence[Problem]:
    """Return the problems that an error lists."""
    return problems[:MAX_PROBLEMS]


def summary(
    problems: Sequence[Problem], thing: str = "field", *, cut_off: bool = False
) -> str:
    """Count the problems and name the first: many callers read only the message."""
    first = problems[0].in_words()
    count = len(problems)
    # Most readers of rows stop at this number, so there may be more.
    cut_off = cut_off or count >= MAX_PROBLEMS
    if count == 1 and not cut_off:
        return f"1 {thing} is invalid: {first}."
    at_least = "At least " if cut_off else ""
    are = f"{thing} is" if count == 1 else f"{thing}s are"
    of_them = f", {MAX_PROBLEMS} of them shown" if count >= MAX_PROBLEMS else ""
    return f"{at_least}{count} {are} invalid{of_them}; the first: {first}."


def refuse(problems: list[Problem], *, cut_off: bool = False) -> NoReturn:
    raise with_facts(problems, cut_off=cut_off)


def refuse_size(rows: int, max_rows: int, limit_name: str) -> NoReturn:
    larger = "a job" if limit_name == "max_batch_rows" else "a batch or a job"
    raise ApiError(
        ErrorCode.TOO_LARGE,
        f"{rows} instances are more than the {max_rows} that one request may hold. "
        f"Split them up, or send {larger}.",
        facts={"limit": limit_name, "maximum": max_rows, "needed": rows},
    )
