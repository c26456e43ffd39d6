"""The words for a limit: its unit, its window, and who set it."""

from accounts.admission.limits import Period, Source

PERIOD_ADJECTIVES: dict[Period, str] = {"day": "daily", "month": "monthly"}
# Who set a limit, as its customer knows it.
OWNERS: dict[Source, str] = {
    "plan": "your plan",
    "override": "your account",
    "key": "this API key",
    "site": "this installation",
}
# Units that are not nouns: the noun for one, and for several.
_NOUNS = {
    "compute_ms": ("ms of compute", "ms of compute"),
    "shap_samples": ("SHAP sample", "SHAP samples"),
    "concurrent-requests": (
        "request in flight at once",
        "requests in flight at once",
    ),
}
_DAY_S = 86_400
_SHORTEST_MONTH_S = 28 * _DAY_S
_SPANS = {1: "second", 60: "minute", _DAY_S: "day"}


def noun(number: int, unit: str) -> str:
    """Return the noun for `number` of a unit, or of things whose plural ends in -s."""
    one, several = _NOUNS.get(unit, (unit.removesuffix("s"), unit))
    return one if number == 1 else several


def counted(number: int, unit: str) -> str:
    """Write a number with the noun that `noun` returns: "1 row", "2 API keys"."""
    return f"{number} {noun(number, unit)}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"


def span(window_s: int) -> str:
    """Name the length of a window, as it follows "per"."""
    if window_s >= _SHORTEST_MONTH_S:
        return "month"
    return _SPANS.get(window_s, f"{window_s} s")
