import json
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse
from django.utils import timezone

from accounts.metering.event import UsageEvent
from accounts.usage import recording
from inference.models import Engine, LoadedVersion, ServingRoute
from registry import routes
from registry.models import RegistrySync
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import (
    EngineFactory,
    LoadedVersionFactory,
    RolloutFactory,
    ServingRouteFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client):
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    return client


def _event(customer, number, **changes):
    facts = {
        "id": f"boot-{number}",
        "at": (timezone.now() - timedelta(minutes=5)).timestamp(),
        "customer_id": customer.pk,
        "key_id": "abc",
        "operation": "predict",
        "model": "breast-cancer",
        "version": "2",
        "variant": "default",
        "status": 200,
        "code": "",
        "rows": 3,
        "charged": True,
        "compute_us": 400,
        "total_us": 900,
        "shap_samples": 0,
        "request_id": "req",
    }
    return UsageEvent(**{**facts, **changes})


def spend(customer, *groups):
    """Record `count` calls with the given facts for each group."""
    events = []
    for count, changes in groups:
        for _ in range(count):
            events.append(_event(customer, len(events), **changes))
    recording.record("segment", events, ingested_bytes=1)


def _canary_route():
    return RouteFactory.create(
        default_version=ModelVersionFactory.create(
            registered_model__name="breast-cancer", version=2
        ),
        with_canary=True,
        canary_version__version=3,
    )


def test_an_empty_installation_shows_first_steps(admin):
    response = admin.get(reverse("admin:index"))

    assert response.status_code == 200
    assert b"Register a model in MLflow" in response.content
    assert [step["done"] for step in response.context["steps"]] == [False] * 4


def test_traffic_replaces_the_first_steps(admin):
    spend(CustomerFactory.create(), (4, {}))

    context = admin.get(reverse("admin:index")).context

    assert context["steps"] == []
    assert context["cards"][0]["value"] == "4"


def test_the_error_rate_counts_refused_and_failed_calls(admin):
    spend(
        CustomerFactory.create(),
        (3, {}),
        (1, {"status": 429, "code": "QUOTA_EXCEEDED", "variant": ""}),
    )

    context = admin.get(reverse("admin:index")).context

    assert context["cards"][1]["value"] == "25.0 %"
    assert context["errors"] == [{"status": 429, "code": "QUOTA_EXCEEDED", "count": 1}]


def test_latency_shows_the_median_and_the_tail(admin):
    spend(CustomerFactory.create(), (99, {"total_us": 900}), (2, {"total_us": 90_000}))

    card = admin.get(reverse("admin:index")).context["cards"][2]

    assert card["value"] == "1.2\N{NO-BREAK SPACE}ms"
    assert "70\N{NO-BREAK SPACE}ms" in card["note"]


def test_the_chart_holds_every_call_of_sixty_minutes(admin):
    spend(
        CustomerFactory.create(),
        (9, {}),
        (2, {"variant": "canary"}),
        (3, {"variant": "fallback"}),
        (4, {"variant": "published"}),
        # Refused before a variant was chosen, and after it.
        (5, {"variant": "", "status": 401, "code": "UNAUTHENTICATED"}),
        (6, {"status": 429, "code": "QUOTA_EXCEEDED"}),
        (7, {"variant": "canary", "status": 500, "code": "MODEL_ERROR"}),
    )

    chart = json.loads(admin.get(reverse("admin:index")).context["chart"])

    assert len(chart["labels"]) == 60
    sums = {series["label"]: sum(series["data"]) for series in chart["datasets"]}
    assert sums == {
        "Default": 9,
        "Canary": 2,
        "Fallback": 3,
        "By version": 4,
        "Refused or failed": 18,
    }


def test_a_canary_shows_the_share_that_was_seen(admin):
    _canary_route()
    spend(
        CustomerFactory.create(),
        (16, {}),
        (1, {"variant": "canary", "version": "3"}),
        (1, {"variant": "canary", "version": "3", "status": 500}),
        # Whether an input is refused depends on the version.
        (1, {"variant": "canary", "version": "3", "status": 400}),
        (1, {"variant": "canary", "version": "3", "status": 422}),
    )

    (row,) = admin.get(reverse("admin:index")).context["canaries"]

    assert row["weight_percent"] == 10
    assert row["observed_percent"] == 20
    assert (row["canary"]["failed"], row["canary"]["refused"]) == (1, 2)
    assert (row["default"]["failed"], row["default"]["refused"]) == (0, 0)
    assert row["waiting_for"] == "not served yet"


def test_each_of_several_canaries_has_a_row(admin):
    route = _canary_route()
    model = route.registered_model
    version = ModelVersionFactory.create(registered_model=model, version=4)
    routes.start_canary(version, weight_percent=25, by=None)
    spend(
        CustomerFactory.create(),
        (14, {}),
        (1, {"variant": "canary", "version": "3"}),
        (5, {"variant": "canary", "version": "4", "status": 500}),
    )

    rows = admin.get(reverse("admin:index")).context["canaries"]

    seen = [(row["canary"]["version"], row["weight_percent"]) for row in rows]
    assert seen == [(3, 10), (4, 25)]
    assert [row["observed_percent"] for row in rows] == [5, 25]
    assert [row["is_worse"] for row in rows] == [False, True]


def test_what_only_the_canary_refuses_is_shown_by_version(admin):
    route = _canary_route()
    spend(
        CustomerFactory.create(),
        (20, {}),
        (2, {"status": 400, "code": "INVALID_INPUT"}),
        (5, {"variant": "canary", "version": "3", "status": 400}),
        # A limit is the same for both.
        (1, {"variant": "canary", "version": "3", "status": 429}),
    )

    page = admin.get(reverse("admin:index"))
    own = admin.get(reverse("admin:registry_route_change", args=[route.pk]))

    (row,) = page.context["canaries"]
    assert (row["default"]["refused"], row["canary"]["refused"]) == (2, 5)
    assert row["is_worse"]
    assert page.context["cards"][3]["note"].startswith("1 refused or failed more")
    for response in (page, own):
        text = " ".join(response.content.decode().split())
        assert "v2: 2</span>" in text
        assert "v3: 5</span>" in text


def test_a_canary_like_its_default_is_as_wanted(admin):
    route = _canary_route()
    ServingRoute.objects.create(
        model="breast-cancer", default_version=2, canary_version=3
    )
    ServingRoute.objects.update(moved_at=timezone.now() - timedelta(minutes=10))
    spend(CustomerFactory.create(), (9, {}), (1, {"variant": "canary", "version": "3"}))

    context = admin.get(reverse("admin:index")).context

    assert context["cards"][3]["note"] == "all as wanted"
    assert context["canaries"][0]["route_id"] == route.pk


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"state": "running"}, "all as wanted"),
        ({"state": "paused"}, "1 rollout paused"),
        ({"state": "approval"}, "1 rollout waiting for a second person"),
        (
            {"state": "rolled_back", "ended_at": timezone.now() - timedelta(hours=23)},
            "1 rollout rolled back in 24 hours",
        ),
        (
            {"state": "rolled_back", "ended_at": timezone.now() - timedelta(hours=25)},
            "all as wanted",
        ),
    ],
)
def test_rollouts_that_somebody_should_look_at_are_named(admin, fields, note):
    RolloutFactory.create(**fields)

    card = admin.get(reverse("admin:index")).context["cards"][3]

    assert card["note"] == note


def test_a_canary_shows_its_rollout_on_the_dashboard_and_on_its_route(admin):
    route = _canary_route()
    rollout = RolloutFactory.create(
        version=route.canary_version, default_version=route.default_version
    )
    url = reverse("admin:inference_rollout_change", args=[rollout.pk])
    own = reverse("admin:registry_route_change", args=[route.pk])

    for path in (reverse("admin:index"), own):
        page = admin.get(path).content.decode()
        assert f'href="{url}"' in page
        assert "waiting for its version" in page


def test_traffic_from_before_the_weights_moved_is_not_counted(admin):
    _canary_route()
    serving = ServingRoute.objects.create(
        model="breast-cancer",
        default_version=2,
        default_weight_percent=90,
        canary_version=3,
        canary_weight_percent=10,
    )
    ServingRoute.objects.filter(pk=serving.pk).update(moved_at=timezone.now())
    spend(CustomerFactory.create(), (5, {}))

    (row,) = admin.get(reverse("admin:index")).context["canaries"]

    assert row["observed_percent"] is None
    assert row["counted_from"] > timezone.now() - timedelta(minutes=1)
    assert row["requests"] == 0


def test_a_silent_engine_is_shown_as_away(admin):
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    EngineFactory.create(name="cpu", seen_at=long_ago)
    own = {"kind": Engine.Kind.OWN, "memory_bytes": 2**20}
    EngineFactory.create(name="credit-1a2b3c", **own)
    EngineFactory.create(name="fraud-4d5e6f", seen_at=long_ago, **own)

    page = admin.get(reverse("admin:index"))

    assert [engine["name"] for engine in page.context["engines"]] == ["cpu"]
    assert not page.context["engines"][0]["running"]
    text = page.content.decode()
    assert "2 processes of versions with their authors’ code" in text
    assert "Away: fraud-4d5e6f." in text


TRACE = "KeyError: 'a'\nTraceback (most recent call last):\n  File model.py, line 3"


def test_versions_in_trouble_are_named_with_a_sentence_and_no_trace(admin):
    failed = RouteFactory.create().default_version
    LoadedVersionFactory.create(
        of=failed, state=LoadedVersion.State.FAILED, error=TRACE
    )
    serving = RouteFactory.create()
    ServingRouteFactory.create(of=serving)
    LoadedVersionFactory.create(of=serving.default_version)

    page = admin.get(reverse("admin:index"))

    shown = page.context["versions"]
    assert [each["count"] for each in shown["counts"]] == [1, 1]
    (trouble,) = shown["troubled"]
    assert trouble["name"] == str(failed)
    assert trouble["sentence"].endswith("KeyError: 'a'")
    assert admin.get(trouble["url"]).status_code == 200
    assert b"model.py" not in page.content


def test_no_trace_is_on_the_dashboard_whatever_failed(admin):
    route = _canary_route()
    ServingRouteFactory.create(of=route, waiting_for=TRACE)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    EngineFactory.create(error=TRACE, seen_at=long_ago)
    RegistrySync.objects.create(pk=1, tracking_uri="x", error=TRACE)

    page = admin.get(reverse("admin:index")).content.decode()

    assert page.count("KeyError: &#x27;a&#x27;") == 3
    assert "model.py" not in page


def test_many_versions_in_trouble_are_counted(admin):
    for _ in range(10):
        ModelVersionFactory.create(published=True, serving_problem="It needs trust.")

    page = admin.get(reverse("admin:index"))

    assert len(page.context["versions"]["troubled"]) == 8
    assert b"2 more are in trouble" in page.content


def test_a_failing_sync_says_why(admin):
    RegistrySync.objects.create(pk=1, tracking_uri="x", error="MLflow is unreachable")

    page = admin.get(reverse("admin:index"))

    assert b"MLflow is unreachable" in page.content


def test_names_of_customers_are_only_for_those_who_manage_them(client):
    scientist = UserFactory.create(is_staff=True)
    scientist.groups.add(Group.objects.get(name="data scientists"))
    client.force_login(scientist)
    spend(CustomerFactory.create(name="Acme & Sons"), (1, {}))

    page = client.get(reverse("admin:index"))

    assert page.status_code == 200
    assert b"Acme" not in page.content
    assert page.context["cards"][0]["value"] == "1"


def test_the_dashboard_costs_the_same_however_much_there_is(
    admin, django_assert_max_num_queries
):
    for _ in range(3):
        RouteFactory.create(with_canary=True)
    customer = CustomerFactory.create()
    spend(customer, *((1, {"model": f"model-{n}"}) for n in range(20)))
    admin.get(reverse("admin:index"))

    # Two of the queries read the session and the user.
    with django_assert_max_num_queries(27):
        admin.get(reverse("admin:index"))


def test_the_demo_says_where_its_registry_is_and_who_may_sign_in(admin, settings):
    facts = {"mlflow_tracking_uri": "sqlite:////here/mlflow.db", "staff": {"dana": "x"}}
    settings.HOME.demo.write_text(json.dumps(facts))
    try:
        page = admin.get("/admin/").content.decode()
    finally:
        settings.HOME.demo.unlink()

    assert "sqlite:////here/mlflow.db" in page
    assert "dana" in page
    assert str(settings.HOME.demo) in page
    assert "This is the demo" not in admin.get("/admin/").content.decode()
