"""The registry's pages show how engines serve a version, and let people act on it."""

import html
import re
from datetime import UTC, datetime

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.urls import reverse

from inference.admin import sparkline
from inference.models import Engine, LoadedVersion, VersionCondition, VersionEvent
from registry.models import Route
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import (
    EngineFactory,
    LoadedVersionFactory,
    ServingRouteFactory,
    VersionConditionFactory,
    VersionEventFactory,
)

pytestmark = pytest.mark.django_db

TRACE = 'Traceback (most recent call last):\n  File "model.py", line 3\nKeyError: 7'


@pytest.fixture
def scientist(client):
    person = UserFactory(username="grace", is_staff=True)
    person.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(person)
    return person


def page_of(client, version):
    url = reverse("admin:registry_modelversion_change", args=[version.pk])
    return html.unescape(client.get(url).content.decode())


def act(client, version, action, **fields):
    url = reverse(f"admin:registry_modelversion_{action}", args=[version.pk])
    return client.post(url, {"_form_submitted": "on", **fields}, follow=True)


def words(page):
    """Return the text of a page as people read it."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_a_version_says_where_it_runs(client, scientist):
    version = RouteFactory().default_version
    engine = EngineFactory(
        name="credit-1a2b3c",
        kind=Engine.Kind.OWN,
        host="alpha",
        pid=1234,
        memory_limit_bytes=2**30,
        memory_samples=[[0, 100 * 2**20], [60, 200 * 2**20]],
    )
    LoadedVersionFactory(
        of=version,
        engine=engine,
        calls=1200,
        rows=4800,
        single_row_ms=0.42,
        ready_at=datetime(2026, 11, 30, 12, 0, tzinfo=UTC),
        apart="it answers the same row differently in company",
        notes="its memory grows steadily",
    )

    page = page_of(client, version)

    text = words(page)
    assert "credit-1a2b3c pid 1234, base READY" in text.replace("ready", "READY")
    assert "alpha cpu" in text
    assert "its memory grows steadily" in text
    assert "200.0\xa0MB of 1.0\xa0GB" in page
    assert "1,200 4,800 0.42 ms" in text
    assert "Its requests share no batches: it answers the same row" in text
    assert (
        'aria-label="Memory from 00:00 to 00:01 UTC: 100.0\xa0MB at first, '
        '200.0\xa0MB now, 200.0\xa0MB at most"'
    ) in page


def test_a_version_says_how_its_processes_are_to_run(client, scientist):
    version = RouteFactory(
        default_version__metadata={"process": {"isolation": "shared", "replicas": 1}}
    ).default_version
    assert "Process: isolation shared, replicas 1 " in words(page_of(client, version))

    version.registered_model.process = {"isolation": "own", "repeatable": False}
    version.registered_model.save()
    Route.objects.update(replicas=3)

    text = words(page_of(client, version))
    assert "Process: isolation own, repeatable no, replicas 3 " in text

    version.metadata, version.metadata_errors = {"process": [1]}, ["process: no object"]
    version.save()
    assert "Process: " not in words(page_of(client, version))


def test_on_day_one_a_version_says_that_nothing_holds_it(client, scientist):
    text = words(page_of(client, ModelVersionFactory()))

    assert "not called for" in text
    assert "No engine process holds it." in text
    assert "None of its processes has died." in text
    assert "It has failed on no batch." in text


def test_the_engine_of_a_device_shows_what_the_version_takes_there(client, scientist):
    version = RouteFactory().default_version
    engine = EngineFactory(memory_samples=[[0, 2**33], [60, 2**33]])
    LoadedVersionFactory(of=version, engine=engine, memory_bytes=5 * 2**20)

    page = page_of(client, version)

    assert "5.0\xa0MB" in page
    assert "8.0\xa0GB" not in page


def test_a_death_says_how_it_ended_and_its_last_lines_are_one_click_away(
    client, scientist
):
    version = ModelVersionFactory()
    VersionEventFactory(
        of=version,
        kind=VersionEvent.Kind.DEATH,
        text="It ended while it ran a batch of 4 rows.",
        detail="Segmentation fault",
        exit_code=-11,
        signal="SIGSEGV",
        engine="credit-1a2b3c",
        host="alpha",
        rows=4,
    )

    page = page_of(client, version)

    assert "process credit-1a2b3c on alpha, signal SIGSEGV, 4 rows" in words(page)
    [details] = re.findall(r"<details>.*?</details>", after(page), re.DOTALL)
    assert "Last lines of its output" in details
    assert "Segmentation fault" in details


def after(page):
    """Return the cards below the version's own fields."""
    return page[page.index("Deaths of its processes") :]


def test_the_last_20_failed_batches_name_their_requests_and_fold_their_traces(
    client, scientist
):
    version = ModelVersionFactory()
    for second in range(25):
        VersionEventFactory(
            of=version,
            at=datetime(2026, 11, 30, 12, 0, second, tzinfo=UTC),
            text=f"ValueError: row {second} is odd",
            detail=TRACE,
            request_ids=["req-a", "req-b"],
        )

    page = page_of(client, version)

    shown = re.findall(r"ValueError: row (\d+) is odd", page)
    assert shown == [str(second) for second in range(24, 4, -1)]
    assert page.count("req-b") == 20
    assert "2 requests" in page
    outside = re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)
    assert "model.py" in page
    assert "model.py" not in outside


def test_events_of_other_versions_are_theirs(client, scientist):
    version = ModelVersionFactory()
    other = ModelVersionFactory(registered_model=version.registered_model)
    VersionEventFactory(of=other, text="something of another version")

    assert "something of another version" not in page_of(client, version)


def test_what_else_happened_is_told_with_its_kind(client, scientist):
    version = ModelVersionFactory()
    VersionEventFactory(of=version, kind=VersionEvent.Kind.LEAK, text="1 MB a call")

    assert "Its memory grows steadily: 1 MB a call" in words(page_of(client, version))


def test_the_fit_of_its_environment_is_shown(client, scientist):
    version = ModelVersionFactory(
        environment_fit={
            "verdict": "fits",
            "findings": ["scikit-learn 1.5 was asked for, 1.9 is there."],
        }
    )

    text = words(page_of(client, version))

    assert "Environment: base, fits scikit-learn 1.5 was asked for" in text


def test_who_may_not_see_engines_sees_the_state_only(client):
    person = UserFactory(is_staff=True)
    may = Permission.objects.get(codename="view_modelversion")
    person.user_permissions.add(may)
    client.force_login(person)
    version = RouteFactory().default_version
    LoadedVersionFactory(of=version, state="failed", error="secret reason")
    VersionEventFactory(of=version, text="secret failure")

    assert "secret" not in page_of(client, version)
    changelist = client.get(reverse("admin:registry_modelversion_changelist"))
    assert "failed" in changelist.content.decode()


def in_each_state():
    serving = RouteFactory(with_canary=True)
    ServingRouteFactory(of=serving)
    engine = EngineFactory()
    for version in (serving.default_version, serving.canary_version):
        LoadedVersionFactory(of=version, engine=engine)
    loading = RouteFactory()
    LoadedVersionFactory(
        of=loading.default_version, engine=engine, state=LoadedVersion.State.LOADING
    )
    quarantined = RouteFactory()
    VersionConditionFactory(of=quarantined.default_version)
    failed = RouteFactory(default_version__serving_problem="It needs trust.")
    unfit = {"verdict": "lacks", "findings": ["It lacks lightgbm."]}
    return {
        "serving (default)": serving.default_version,
        "serving (canary)": serving.canary_version,
        "loading": loading.default_version,
        "waiting": RouteFactory().default_version,
        "quarantined": quarantined.default_version,
        "failed": failed.default_version,
        "does not fit": RouteFactory(
            default_version__registered_model__trusted=True,
            default_version__environment_fit=unfit,
        ).default_version,
        "not called for": ModelVersionFactory(),
    }


def test_lists_and_pages_say_the_same_of_a_version(client, scientist):
    versions = in_each_state()
    answer = client.get(reverse("admin:registry_modelversion_changelist"))
    listed = {row.pk: row for row in answer.context["cl"].result_list}

    for state, version in versions.items():
        assert listed[version.pk].state_report.state == state
        assert state in words(page_of(client, version))
        model = reverse(
            "admin:registry_registeredmodel_change", args=[version.registered_model_id]
        )
        assert state in words(client.get(model).content.decode())
        route = getattr(version.registered_model, "route", None)
        if route is not None:
            page = reverse("admin:registry_route_change", args=[route.pk])
            assert state in words(client.get(page).content.decode())
    routes = words(
        client.get(reverse("admin:registry_route_changelist")).content.decode()
    )
    assert [state for state in versions if state not in routes] == ["not called for"]


def test_why_leads_from_the_list_to_the_reason(client, scientist):
    version = RouteFactory(default_version__serving_problem="No trust.").default_version
    page = client.get(reverse("admin:registry_modelversion_changelist"))
    [link] = re.findall(r'href="([^"]+)#why"', page.content.decode())

    text = client.get(link).content.decode()

    why = text[text.index('id="why"') :]
    assert words(why).startswith('id="why"> Where it runs failed No trust.')
    assert f'aria-label="Why is {version} failed?"' in page.content.decode()


@pytest.mark.parametrize("page", ["modelversion", "route", "registeredmodel"])
def test_lists_ask_no_more_for_more_rows(
    client, scientist, page, django_assert_max_num_queries
):
    for _ in range(15):
        RouteFactory(with_canary=True, default_version__serving_problem="It failed.")
    client.get(reverse("admin:index"))

    with django_assert_max_num_queries(20):
        client.get(reverse(f"admin:registry_{page}_changelist"))


def test_a_failed_version_is_loaded_again(client, scientist):
    version = RouteFactory().default_version
    LoadedVersionFactory(of=version, state="failed", error="no room")
    assert "Load again" in page_of(client, version)

    answer = act(client, version, "load_again")

    assert f"Engines load {version} again now" in answer.content.decode()
    condition = VersionCondition.objects.get()
    assert condition.asked_by == scientist
    assert condition.load_again_at is not None
    assert LogEntry.objects.get().user == scientist
    assert "grace last asked to load it again" in words(page_of(client, version))


def test_a_quarantined_version_is_released(client, scientist):
    version = RouteFactory().default_version
    condition = VersionConditionFactory(of=version, reason="It died twice.")
    assert "Release" in page_of(client, version)
    url = reverse("admin:registry_modelversion_release", args=[version.pk])
    dialog = client.get(url).content.decode()
    assert "It died twice." in dialog
    [seen] = re.findall(r'name="quarantined_at" value="([^"]+)"', dialog)

    act(client, version, "release", quarantined_at=seen)

    condition.refresh_from_db()
    assert condition.quarantined_at is None
    assert "Released: grace released it" in words(page_of(client, version))
    assert "grace" in str(LogEntry.objects.get().user)


def test_a_quarantine_that_began_since_the_question_stays(client, scientist):
    version = RouteFactory().default_version
    condition = VersionConditionFactory(of=version)
    seen = condition.quarantined_at.isoformat()
    condition.quarantined_at = datetime(2026, 12, 1, tzinfo=UTC)
    condition.save()

    answer = act(client, version, "release", quarantined_at=seen)

    condition.refresh_from_db()
    assert condition.quarantined_at is not None
    assert "was quarantined again since you asked" in answer.content.decode()


def test_actions_that_cannot_help_are_not_offered(client, scientist):
    page = page_of(client, ModelVersionFactory())

    assert "Load again" not in page
    assert "Release" not in page
    assert "Make default" in page


@pytest.mark.parametrize("action", ["load_again", "release"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_who_may_not_promote_acts_on_no_version(client, action, method):
    operator = UserFactory(is_staff=True)
    operator.groups.add(Group.objects.get(name="operators"))
    client.force_login(operator)
    version = RouteFactory().default_version
    VersionConditionFactory(of=version)

    url = reverse(f"admin:registry_modelversion_{action}", args=[version.pk])
    response = getattr(client, method)(url, {"_form_submitted": "on"})

    assert response.status_code == 403
    assert VersionCondition.objects.get().quarantined_at is not None


def test_looking_at_a_dialog_changes_nothing(client, scientist):
    version = RouteFactory().default_version
    VersionConditionFactory(of=version)

    for action in ("load_again", "release"):
        client.get(reverse(f"admin:registry_modelversion_{action}", args=[version.pk]))

    condition = VersionCondition.objects.get()
    assert condition.quarantined_at is not None
    assert condition.load_again_at is None


def test_a_line_of_one_sample_is_not_drawn():
    assert sparkline.draw([]) is None
    assert sparkline.draw([[0, 5]]) is None


def test_a_line_stays_within_its_picture_and_begins_at_zero():
    drawn = sparkline.draw([[0, 0], [30, 50], [60, 100]])

    assert drawn.points == "0.0,22.0 60.0,12.0 120.0,2.0"


def test_a_process_without_memory_is_a_flat_line():
    assert sparkline.draw([[0, 0], [0, 0]]).points == "0.0,22.0 0.0,22.0"


DIALOGS = ["make_default", "start_canary", "start_rollout", "publish"]


@pytest.mark.parametrize("dialog", DIALOGS)
@pytest.mark.parametrize(
    ("facts", "loaded", "says"),
    [
        ({"serving_problem": "It needs 3 GB."}, None, "it is failed. It needs 3 GB."),
        ({"flavors": ["python_function", "sklearn"]}, None, "it is untrusted."),
        ({}, "evicted", "it is waiting for memory."),
        ({}, "failed", "it is failed. On "),
        ({}, None, ""),
        ({}, "ready", ""),
    ],
)
def test_a_dialog_says_first_if_the_version_cannot_answer(
    client, scientist, dialog, facts, loaded, says
):
    model = RouteFactory().registered_model
    version = ModelVersionFactory(registered_model=model, **facts)
    if loaded is not None:
        LoadedVersionFactory(of=version, state=loaded, error="bad\nTraceback")

    url = reverse(f"admin:registry_modelversion_{dialog}", args=[version.pk])
    text = words(client.get(url).content.decode())

    assert ("cannot answer now" in text) is bool(says)
    assert says in text
    assert "Traceback" not in text


def test_stopping_a_canary_needs_no_such_warning(client, scientist):
    route = RouteFactory(with_canary=True, canary_version__serving_problem="It broke.")
    version = route.canary_version

    url = reverse("admin:registry_modelversion_stop_canary", args=[version.pk])

    assert "cannot answer" not in client.get(url).content.decode()


def test_the_page_offers_only_changes_of_the_route_that_change_something(
    client, scientist
):
    route = RouteFactory(with_canary=True)
    other = ModelVersionFactory(registered_model=route.registered_model)
    changes = ("Make default", "Start canary", "Start rollout", "Stop canary")

    offered = {
        version: [each for each in changes if each in words(page_of(client, version))]
        for version in (route.default_version, route.canary_version, other)
    }

    assert offered == {
        route.default_version: [],
        route.canary_version: list(changes),
        other: list(changes[:3]),
    }
