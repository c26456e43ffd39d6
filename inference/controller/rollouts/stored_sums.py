"""Read and write the plan and the sums of a rollout's row."""

import functools
from typing import Any

import msgspec

from inference.models import Rollout
from inference.rollouts.answers import AnswerTests
from inference.rollouts.counting import Counter, Sums
from registry.rules.rollout_plans import Plan


def plan_of(rollout: Rollout) -> Plan:
    return msgspec.convert(rollout.plan, Plan)


@functools.lru_cache(maxsize=256)
def counter_of(plan: Plan) -> Counter:
    return Counter(plan)


@functools.lru_cache(maxsize=256)
def answer_tests_of(plan: Plan) -> AnswerTests:
    return AnswerTests(plan)


def read(rollout: Rollout) -> Sums:
    """Read the sums; raises ValueError if other code has written them."""
    try:
        # Keys of JSON objects are text.
        sums = msgspec.convert(rollout.sums, Sums, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(
            f"its numbers are of another version of the code ({error}). Resume to "
            "count anew."
        ) from error
    expected = counter_of(plan_of(rollout)).start()
    for name in sums.__struct_fields__:
        kept, empty = getattr(sums, name), getattr(expected, name)
        if isinstance(empty, list) and empty and len(kept) != len(empty):
            raise ValueError(
                f"its numbers of {name} are of another version of the code. Resume to "
                "count anew."
            )
    return sums


def that_decided(rollout: Rollout) -> dict[str, Any]:
    """Return the numbers without what only the next calls need."""
    needed_later = ("counted", "first", "sizes", "dealing_waits", "units")
    found = {n: value for n, value in rollout.sums.items() if n not in needed_later}
    for name in ("answers", "predictions"):
        parts = found.get(name, {})
        found[name] = {n: parts[n] for n in parts if n not in needed_later}
    return found


def as_json(value: Plan | Sums) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value, str_keys=True)
    return found
