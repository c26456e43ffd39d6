"""Test POST /api/v1/feedback."""

import datetime

import pytest
from django.utils import timezone

from accounts.metering.calls import CallIndex, StillReading
from inference.feedback import storing
from inference.metrics.counts import HERE
from inference.models import Feedback, FeedbackUse
from tests.factories import CustomerFactory, issue_key
from tests.inference.feedback.calls import DAY_S, Calls

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer():
    return CustomerFactory.create(
        plan__burst_requests=10**6, plan__sustained_requests=10**6
    )


@pytest.fixture
def key(customer):
    return issue_key(customer, scopes=["feedback"])


@pytest.fixture
def calls(home):
    written = Calls(home)
    yield written
    written.close()


@pytest.fixture
def send(client, key):
    def send(body, issued=key):
        return client.post(
            "/api/v1/feedback",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {issued.token}"},
        )

    return send


def counted(result):
    return sum(
        number.value
        for number in HERE.numbers()
        if number.name == "feedback" and number.labels == (result,)
    )


def test_a_call_gets_feedback_at_once(calls, key, send):
    calls.answer(key.key, "r-1", version="4", variant="canary")

    response = send({"request_id": "r-1", "score": 0.75})

    assert response.status_code == 202
    assert response.json() == {
        "request_id": "r-1",
        "index": 0,
        "model": {"name": "sum", "version": "4"},
    }
    row = Feedback.objects.get()
    assert (row.model, row.version, row.said) == ("sum", "4", {"score": 0.75})
    assert row.counted_at is None


def test_the_same_again_changes_nothing(calls, key, send):
    calls.answer(key.key, "r-1")
    first = send({"request_id": "r-1", "score": 0.75})
    Feedback.objects.update(counted_at=timezone.now())

    second = send({"request_id": "r-1", "score": 0.75})

    assert (second.status_code, second.json()) == (200, first.json())
    assert Feedback.objects.get().counted_at is not None


def test_a_correction_replaces_what_was_said_before(calls, key, send):
    calls.answer(key.key, "r-1")
    send({"request_id": "r-1", "score": 0.75})
    Feedback.objects.update(counted_at=timezone.now(), counted={"score": 0.75})

    assert send({"request_id": "r-1", "rating": "down"}).status_code == 202

    row = Feedback.objects.get()
    assert row.said == {"score": 0.0}
    # It waits to be counted again, in place of the number that was.
    assert (row.counted, row.counted_at) == ({"score": 0.75}, None)


def test_a_label_is_judged_and_not_kept(calls, key, send):
    calls.answer(key.key, "r-1")

    send({"request_id": "r-1", "label": "secret-a", "prediction": "secret-b"})

    row = Feedback.objects.values().get()
    assert row["said"] == {"right": 0.0}
    assert "secret" not in str(row)


def test_a_list_is_answered_one_by_one(calls, key, send):
    calls.answer(key.key, "r-1", rows=3)

    response = send(
        {
            "feedback": [
                {"request_id": "r-1", "index": 2, "score": 1},
                {"request_id": "unknown", "score": 1},
                {"request_id": "r-1", "index": 3, "score": 1},
                {"request_id": "r-1", "score": "good"},
                "nothing",
                # The last word on an instance counts.
                {"request_id": "r-1", "index": 2, "score": 0},
            ]
        }
    )

    assert response.status_code == 202
    results = response.json()["data"]
    assert [each.get("error", {}).get("code") for each in results] == [
        None,
        "NOT_FOUND",
        "UNPROCESSABLE",
        "INVALID_INPUT",
        "INVALID_INPUT",
        None,
    ]
    assert [(each["request_id"], each["index"]) for each in results[2:5]] == [
        ("r-1", 3),
        ("r-1", 0),
        (None, 0),
    ]
    assert Feedback.objects.get().said == {"score": 0.0}


def test_a_list_of_what_is_known_already_changes_nothing(calls, key, send):
    calls.answer(key.key, "r-1")
    body = {"feedback": [{"request_id": "r-1", "rating": "up"}]}

    assert [send(body).status_code, send(body).status_code] == [202, 200]


@pytest.mark.parametrize("feedback", [[], [{}] * 101, {}, "r-1", None])
def test_a_list_holds_one_to_a_hundred_items(send, feedback):
    response = send({"feedback": feedback})

    assert response.status_code == 400
    assert "a list of 1 to 100 objects" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [[], '"text"', 5, {"feedback": [{}], "score": 1}, {}])
def test_other_bodies_are_refused_in_words(send, body):
    response = send(body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_INPUT"


def test_foreign_calls_look_as_unknown_ones(calls, key, send):
    theirs = issue_key(CustomerFactory.create())
    calls.answer(theirs.key, "theirs")

    foreign = send({"request_id": "theirs", "score": 1})
    unknown = send({"request_id": "unknown", "score": 1})

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["error"]["message"] == unknown.json()["error"]["message"]
    assert not Feedback.objects.exists()


def test_a_key_says_nothing_of_models_that_it_may_not_call(calls, customer, send):
    other = issue_key(customer, scopes=["feedback"], allowed_models=["other"])
    calls.answer(other.key, "r-1")

    assert send({"request_id": "r-1", "score": 1}, other).status_code == 404


def test_another_key_of_the_customer_may_send_it(calls, customer, key, send):
    caller = issue_key(customer)
    calls.answer(caller.key, "r-1")

    assert send({"request_id": "r-1", "score": 1}).status_code == 202
    assert Feedback.objects.get().key_id == caller.key.key_id


def test_feedback_is_late_by_seven_days_at_most(calls, key, send):
    now = timezone.now().timestamp()
    calls.answer(key.key, "in-time", at=now - 7 * DAY_S + 60)
    calls.answer(key.key, "late", at=now - 7 * DAY_S - 60)

    assert send({"request_id": "in-time", "score": 1}).status_code == 202
    late = send({"request_id": "late", "score": 1})
    assert late.status_code == 422
    assert late.json()["error"]["message"].startswith("Too late: feedback is taken for")


@pytest.mark.parametrize(
    ("changes", "index", "words"),
    [
        (
            {"rows": 2},
            2,
            "must be less than 2, the number of the call's instances that were",
        ),
        ({"version": "", "fallback": "fixed"}, 0, "No version answered this call"),
    ],
)
def test_what_no_version_answered_is_refused(calls, key, send, changes, index, words):
    calls.answer(key.key, "r-1", **changes)

    response = send({"request_id": "r-1", "index": index, "score": 1})

    assert response.status_code == 422
    assert words in response.json()["error"]["message"]


def test_a_key_without_the_scope_is_refused(customer, send):
    response = send(
        {"request_id": "r-1", "score": 1}, issue_key(customer, scopes=["predict"])
    )

    assert response.status_code == 403
    assert "`feedback`" in response.json()["error"]["message"]


def test_a_customer_has_a_number_of_instances_a_day(calls, key, send, settings):
    settings.MODELYARD_FEEDBACK_PER_DAY = 3
    calls.answer(key.key, "r-1")
    item = {"request_id": "r-1", "score": 1}
    before = counted("over_limit")
    assert send({"feedback": [item, item]}).status_code == 202

    refused = send({"feedback": [item, item]})

    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["limit"], error["maximum"], error["used"]) == (
        "QUOTA_EXCEEDED",
        "feedback",
        3,
        2,
    )
    assert int(refused["Retry-After"]) <= DAY_S
    assert counted("over_limit") == before + 2
    assert send(item).status_code == 200
    assert FeedbackUse.objects.get().items == 3


def test_what_is_answered_later_spends_nothing(calls, key, send, monkeypatch):
    def is_reading(*args):
        raise StillReading

    calls.answer(key.key, "r-1")
    item = {"request_id": "r-1", "score": 1}
    monkeypatch.setattr(CallIndex, "find", is_reading)

    assert [send(item).status_code, send({"feedback": [item] * 5}).status_code] == [
        503
    ] * 2
    assert FeedbackUse.objects.get().items == 0

    monkeypatch.undo()
    assert send(item).status_code == 202
    assert FeedbackUse.objects.get().items == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (r'{"request_id": "\ud800", "score": 1}', 400, "INVALID_JSON"),
        (
            '{"request_id": "r-1", "score": 1, "label": "%s"}' % ("x" * 3_000_000),
            413,
            "TOO_LARGE",
        ),
        (
            '{"request_id": "r-1", "score": %s}' % ("[" * 100_000 + "]" * 100_000),
            400,
            "INVALID_JSON",
        ),
        ('{"request_id": "r-1", "score": NaN}', 400, "INVALID_JSON"),
        ('{"request_id": "a b", "score": 1}', 400, "INVALID_INPUT"),
    ],
    ids=["surrogate", "large", "deep", "NaN", "space"],
)
def test_bodies_are_read_as_strictly_as_those_of_predictions(send, body, status, code):
    response = send(body)

    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]


def test_each_result_is_counted(calls, key, send):
    calls.answer(key.key, "r-1")
    results = ("accepted", "repeated", "replaced", "unknown", "invalid")
    before = [counted(result) for result in results]

    for saying in ({"score": 1}, {"score": 1}, {"score": 0}):
        send({"request_id": "r-1", **saying})
    send({"request_id": "unknown", "score": 1})
    send({"request_id": "r-1"})

    assert [counted(result) for result in results] == [each + 1 for each in before]


def test_rows_that_cannot_be_corrected_any_more_are_deleted(calls, key, send):
    calls.answer(key.key, "r-1")
    send({"request_id": "r-1", "score": 1})
    later = timezone.now() + datetime.timedelta(days=7, minutes=1)

    storing.delete_old(now=later)
    assert Feedback.objects.exists()

    # Only what is in the sums.
    Feedback.objects.update(counted_at=timezone.now())
    storing.delete_old(now=timezone.now())
    assert Feedback.objects.exists()
    storing.delete_old(now=later)
    assert not Feedback.objects.exists()


def test_feedback_goes_with_its_customer(calls, customer, key, send):
    calls.answer(key.key, "r-1")
    send({"request_id": "r-1", "score": 1})
    customer.api_keys.all().delete()

    customer.delete()

    assert not Feedback.objects.exists()
    assert not FeedbackUse.objects.exists()
