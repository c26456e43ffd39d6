import msgspec
import pytest
from django.urls import reverse

from accounts.admission.limits import ReachedLimit
from accounts.usage import recording
from tests.accounts.usage.test_refused_calls import refused
from tests.factories import CustomerFactory

pytestmark = pytest.mark.django_db


def look(client, customer, **query):
    path = reverse("portal:refusals", args=[customer.pk])
    return client.get(path, query).content.decode()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("QUOTA_EXCEEDED", 429, "today 10 rows"),
        ("RATE_LIMIT_EXCEEDED", 429, "20 requests per second, 300 requests per minute"),
        ("TOO_LARGE", 413, "100 rows per prediction"),
        ("INVALID_INPUT", 400, "Read <code>details</code>"),
    ],
)
def test_a_refusal_names_its_limit_and_what_to_do(
    member, customer, code, status, words
):
    recording.record("b-1.spool", [refused(customer, code=code, status=status)], 1)

    text = look(member, customer)

    assert words in text
    assert "What to do:" in text
    assert f"/docs/errors#{code.lower()}" in text


def test_a_refusal_shows_what_its_answer_said(member, customer):
    said = "1 field is invalid: `top_k` is <unknown>."
    one = refused(customer, code="INVALID_INPUT", status=400, message=said)
    recording.record("b-1.spool", [one], 1)

    text = look(member, customer)

    assert "<code>top_k</code> is &lt;unknown&gt;." in text
    # Not what the code means most often.
    assert "wrong type or shape" not in text


def test_a_code_from_another_version_of_the_program_is_still_shown(member, customer):
    recording.record(
        "b-1.spool", [refused(customer, code="SHORT_OF_TEA", status=418)], 1
    )

    assert "SHORT_OF_TEA" in look(member, customer)


def test_one_request_is_found_by_its_id(member, customer):
    mine = refused(customer, request_id="req_mine", code="NOT_FOUND", status=404)
    recording.record("b-1.spool", [mine, refused(customer, request_id="req_other")], 1)

    text = look(member, customer, q=" req_mine ")

    assert "req_mine" in text
    assert "req_other" not in text


def test_another_customers_request_is_not_found(member, customer):
    foreign = refused(CustomerFactory.create(), request_id="req_foreign")
    recording.record("b-1.spool", [foreign], 1)

    assert "No refused call has the id" in look(member, customer, q="req_foreign")
    assert "No call was refused" in look(member, customer)


def test_many_refusals_come_in_pages(member, customer):
    flood = [refused(customer, request_id=f"req_{n}") for n in range(30)]
    recording.record("b-1.spool", flood, 1)

    assert look(member, customer).count("<article") == 25
    assert look(member, customer, page=2).count("<article") == 5
    assert look(member, customer, page="x").count("<article") == 25


def test_a_refusal_that_names_its_limit_shows_that_one_only(member, customer):
    limit = ReachedLimit(
        name="day",
        scope="customer",
        source="plan",
        unit="rows",
        maximum=10,
        used=9,
        needed=3,
        window_s=86_400,
        resets_at=4_000_000_000,
    )
    call = msgspec.structs.replace(refused(customer), limit=limit)
    recording.record("b-1.spool", [call], 1)

    text = look(member, customer)

    assert (
        "10 rows per day, a limit of your plan. 1 was left, and this call needed 3."
        in text
    )
    assert "Your limits:" not in text
