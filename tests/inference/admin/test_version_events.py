"""One list shows what happened to all versions, and lets nobody edit it."""

import html
import re
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from inference.admin import version_events
from inference.models import VersionEvent
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory
from tests.factories_serving import VersionEventFactory

pytestmark = pytest.mark.django_db

LIST = reverse("admin:inference_versionevent_changelist")
TRACE = 'Traceback (most recent call last):\n  File "model.py", line 3\nKeyError: 7'
Kind = VersionEvent.Kind


@pytest.fixture
def scientist(client):
    person = UserFactory(is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return client


def texts_of(answer):
    """Return what happened, in the order of the list."""
    assert answer.status_code == 200
    return [event.text for event in answer.context["cl"].result_list]


def test_the_list_shows_the_newest_first_with_a_link_to_the_version(scientist):
    version = ModelVersionFactory(registered_model__name="credit", version=3)
    VersionEventFactory(of=version, text="old", at=datetime(2026, 11, 1, tzinfo=UTC))
    VersionEventFactory(of=version, text="new", kind=Kind.DEATH, detail=TRACE)
    VersionEventFactory(model="gone", version=9, text="older than its model")

    answer = scientist.get(LIST)

    assert texts_of(answer) == ["older than its model", "new", "old"]
    page = html.unescape(answer.content.decode())
    link = reverse("admin:registry_modelversion_change", args=[version.pk])
    assert f'href="{link}">credit v3</a>' in page
    assert "gone v9" in page
    assert "its process died" in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"model": "credit"}, ["b", "a"]),
        ({"model": "credit", "version": 2}, ["b"]),
        ({"kind__exact": "leak"}, ["c"]),
        pytest.param(
            {"at_from_0": "2026-11-02", "at_from_1": "00:00"},
            ["c", "b"],
            # Unfold's filter names no zone, which Django takes for UTC.
            marks=pytest.mark.filterwarnings("ignore:.*received a naive datetime"),
        ),
        ({"q": "credit"}, ["b", "a"]),
        ({"q": "cpu-7"}, ["c"]),
        ({"q": "req_42"}, ["b"]),
    ],
)
def test_events_are_filtered_and_found(scientist, query, found):
    def happened(text, model, version, **facts):
        facts.setdefault("kind", Kind.FAILURE)
        VersionEventFactory(text=text, model=model, version=version, **facts)

    november = [datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 4)]
    happened("a", "credit", 1, at=november[0])
    happened("b", "credit", 2, at=november[1], request_ids=["req_42"])
    happened("c", "fraud", 1, at=november[2], kind=Kind.LEAK, engine="cpu-7")

    assert texts_of(scientist.get(LIST, query)) == found


def test_an_event_s_page_has_the_whole_trace_and_cannot_be_changed(scientist):
    event = VersionEventFactory(
        text="KeyError: 7",
        detail=TRACE,
        signal="SIGSEGV",
        engine="credit-1a2b3c",
        host="alpha",
        request_ids=["req_1", "req_2"],
    )
    change = reverse("admin:inference_versionevent_change", args=[event.pk])

    page = html.unescape(scientist.get(change).content.decode())

    for text in (TRACE, "signal SIGSEGV", "credit-1a2b3c on alpha", "req_2"):
        assert text in page
    assert scientist.post(change, {}).status_code == 403
    assert scientist.get(LIST + "add/").status_code == 403


def test_on_day_one_the_list_says_what_would_be_there(scientist):
    assert "While all goes well" in scientist.get(LIST).content.decode()


def test_more_events_need_no_more_queries(scientist):
    def queries():
        with CaptureQueriesContext(connection) as found:
            assert scientist.get(LIST).status_code == 200
        return len(found)

    VersionEventFactory(of=ModelVersionFactory())
    few = queries()
    for _ in range(10):
        VersionEventFactory(of=ModelVersionFactory())

    assert queries() == few


def test_a_version_and_the_dashboard_lead_to_the_list(scientist):
    version = ModelVersionFactory(registered_model__name="a & b", version=2)
    VersionEventFactory(of=version, text="its own")
    VersionEventFactory(model="a & b", version=1, text="another's")
    page = scientist.get(
        reverse("admin:registry_modelversion_change", args=[version.pk])
    ).content.decode()
    [link] = re.findall(rf'href="({LIST}\?[^"]+)"', page)

    assert html.unescape(link) == version_events.list_url(version)
    assert texts_of(scientist.get(html.unescape(link))) == ["its own"]
    assert f'href="{LIST}">What happened' in scientist.get("/admin/").content.decode()
