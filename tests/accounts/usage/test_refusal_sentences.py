import datetime

import pytest

from accounts.admission.limits import ReachedLimit
from accounts.usage import refusal_sentences

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)
MIDNIGHT = int(datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC).timestamp())


def limit(**given):
    shown = {"name": "day", "scope": "customer", "source": "plan", "unit": "rows"}
    return ReachedLimit(**(shown | {"maximum": 1000} | given)).facts()


DAY = {"window_s": 86_400, "resets_at": MIDNIGHT}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"used": 1000, **DAY},
            "1,000 rows per day, a limit of your plan. All of it was used."
            " It opens again on 22 November, 00:00:00 UTC.",
        ),
        (
            {"used": 999, "needed": 3, **DAY},
            "1,000 rows per day, a limit of your plan. 1 was left, and this call needed"
            " 3. It opens again on 22 November, 00:00:00 UTC.",
        ),
        (
            {"unit": "compute_ms", "source": "override", "window_s": 30 * 86_400},
            "1,000 ms of compute per month, a limit of your account.",
        ),
        (
            {
                "name": "key-burst",
                "source": "key",
                "unit": "requests",
                "maximum": 5,
                "used": 5,
                "window_s": 1,
                "resets_at": MIDNIGHT - 50_000,
            },
            "5 requests per second, a limit of this API key. All of it was used."
            " It is open again.",
        ),
        (
            {"unit": "concurrent-requests", "maximum": 4, "used": 4},
            "4 requests in flight at once, a limit of your plan. All of it was used.",
        ),
        (
            {"name": "max_predict_rows", "maximum": 100, "needed": 250},
            "100 rows in one call, a limit of your plan. This call had 250.",
        ),
        (
            {"unit": "shap_samples", "maximum": 1, "window_s": 300},
            "1 SHAP sample per 300 s, a limit of your plan.",
        ),
        (
            {"unit": "compute_ms", "maximum": 1, "source": "site", "window_s": 60},
            "1 ms of compute per minute, a limit of this installation.",
        ),
        (
            {"unit": "concurrent-requests", "maximum": 1, "source": "key"},
            "1 request in flight at once, a limit of this API key.",
        ),
        (
            {"name": "backoff", "source": "site", "maximum": 0, "used": 0},
            "This API key was closed for a while: it kept calling while refused.",
        ),
    ],
)
def test_a_limit_is_told_in_sentences(given, words):
    assert refusal_sentences.sentences(limit(**given), now=NOW) == words


def test_a_refusal_for_no_limit_has_no_sentence():
    assert refusal_sentences.sentences({}, now=NOW) == ""


def test_facts_of_another_version_of_the_program_break_nothing():
    assert refusal_sentences.sentences({"limit": "tea"}, now=NOW) == ""
