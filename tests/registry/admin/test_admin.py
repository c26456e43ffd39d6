import html
import re

import pytest
from celery import current_app
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError

from registry import routes
from registry.admin import columns
from registry.models import AliasState, RegistrySync, Route
from registry.tasks import fetch_artifact, sync_registry
from tests.factories_registry import (
    TENSOR_SIGNATURE,
    AliasFactory,
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)

pytestmark = pytest.mark.django_db

VIEW = ("view_registeredmodel", "view_modelversion", "view_route")
LISTS = ("registeredmodel", "modelversion", "route")


@pytest.fixture(autouse=True)
def queued(monkeypatch):
    """Collect what would go to workers."""
    asked = []

    def ask(name, args=(), **_):
        asked.append((name, *args))

    monkeypatch.setattr(current_app, "send_task", ask)
    monkeypatch.setattr(
        sync_registry, "apply_async", lambda **_: ask(sync_registry.name)
    )
    return asked


@pytest.fixture
def sign_in(client):
    def sign_in(*permissions):
        person = User.objects.create_user("grace", is_staff=True)
        codenames = (*VIEW, *permissions)
        person.user_permissions.set(
            Permission.objects.filter(
                content_type__app_label="registry", codename__in=codenames
            )
        )
        client.force_login(person)
        return person

    return sign_in


def list_url(model):
    return reverse(f"admin:registry_{model}_changelist")


def action_url(version, action):
    return reverse(f"admin:registry_modelversion_{action}", args=[version.pk])


def submit(client, url, **fields):
    return client.post(url, {"_form_submitted": "on", **fields}, follow=True)


@pytest.mark.parametrize("model", LISTS)
def test_an_empty_list_tells_what_to_do_first(model, client, sign_in):
    sign_in()

    page = client.get(list_url(model)).content.decode()

    assert "No model yet." in page
    assert "Not yet synced" in page


def test_a_model_without_a_route_tells_how_to_make_one(client, sign_in):
    sign_in()
    ModelVersionFactory()

    assert "No route yet." in client.get(list_url("route")).content.decode()


@pytest.mark.parametrize("model", LISTS)
def test_a_failed_sync_stands_above_every_list(model, client, sign_in):
    sign_in()
    RegistrySync.objects.create(
        pk=1,
        attempted_at=timezone.now(),
        succeeded_at=timezone.now(),
        error="MLflow is <away>.",
    )

    page = client.get(list_url(model)).content.decode()

    assert "The last sync with MLflow failed" in page
    assert "MLflow is &lt;away&gt;." in page


def test_the_banner_hides_the_password_of_mlflow(client, sign_in, settings):
    settings.MLFLOW_TRACKING_URI = "https://grace:secret@mlflow.example.org"
    sign_in()

    page = client.get(list_url("registeredmodel")).content.decode()

    assert "mlflow.example.org" in page
    assert "secret" not in page


def test_lists_and_details_show_versions_with_metrics_and_problems(client, sign_in):
    sign_in("change_route", "change_registeredmodel", "change_registrysync")
    route = RouteFactory(
        with_canary=True,
        canary_version__metrics={"accuracy": 0.91234, "loss": None},
        canary_version__metadata_errors=["labels: <too> many."],
    )
    AliasFactory(version=route.canary_version, name="challenger")
    pages = {model: client.get(list_url(model)).content.decode() for model in LISTS}
    change = "admin:registry_{}_change".format
    model_page = client.get(
        reverse(change("registeredmodel"), args=[route.registered_model.pk])
    ).content.decode()
    version_page = client.get(
        reverse(change("modelversion"), args=[route.canary_version.pk])
    ).content.decode()
    route_page = client.get(reverse(change("route"), args=[route.pk])).content.decode()

    assert "0.9123" in pages["modelversion"]
    assert "challenger" in pages["modelversion"]
    assert "canary 10 %" in pages["modelversion"]
    assert "90 %" in pages["registeredmodel"]
    assert "90 %" in pages["route"]
    for page in (model_page, version_page):
        assert "0.9123" in page
        assert "labels: &lt;too&gt; many." in page
    assert "Promote canary" in route_page


def test_why_a_version_cannot_answer_stands_on_its_page_its_list_and_its_route(
    client, sign_in
):
    reason = "It failed on engine cpu: it needs trust"
    route = RouteFactory(default_version__serving_problem=reason)
    sign_in("change_route")

    for page in (
        reverse("admin:registry_modelversion_changelist"),
        reverse("admin:registry_modelversion_change", args=[route.default_version_id]),
        reverse("admin:registry_route_changelist"),
        reverse("admin:registry_route_change", args=[route.pk]),
    ):
        # As text: touch screens do not show title attributes.
        assert f"{reason}<" in client.get(page).content.decode(), page


TRACE = """It failed on engine cpu: ValueError: no weights
Traceback (most recent call last):
  File "model.py", line 3, in load
ValueError: no weights"""


def test_a_stack_trace_is_one_click_away_and_never_in_a_list(client, sign_in):
    route = RouteFactory(default_version__serving_problem=TRACE)
    sign_in("change_route")

    for page in (
        reverse("admin:registry_modelversion_changelist"),
        reverse("admin:registry_route_changelist"),
    ):
        text = client.get(page).content.decode()
        assert "It failed on engine cpu: ValueError: no weights<" in text
        assert "model.py" not in text
    page = client.get(reverse("admin:registry_route_change", args=[route.pk]))
    details = re.search(r"<details.*?</details>", page.content.decode(), re.DOTALL)
    assert "It failed on engine cpu: ValueError: no weights<" in details[0]
    assert "model.py" in details[0]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("It needs trust.\n", "It needs trust."),
        ("no weights\n  at line 3", "no weights"),
        (
            "On cpu: Traceback (most recent call last):\n  File x\nKeyError: 'a'\n",
            "On cpu: KeyError: 'a'",
        ),
        ("x" * 300, "x" * 199 + "…"),
        ("", ""),
    ],
)
def test_a_text_in_short_is_its_first_line(text, short):
    assert columns.in_short(text) == short


def test_a_list_shows_the_beginning_of_a_long_reason_and_counts_others(client, sign_in):
    RouteFactory(
        default_version__metadata_errors=["x" * 500, "labels: too many."],
        default_version__serving_problem="It failed on engine cpu.",
    )
    sign_in("change_route")

    page = client.get(reverse("admin:registry_modelversion_changelist")).content

    assert re.search(r">x{119}… \+2<", page.decode())


def test_the_number_of_queries_does_not_grow_with_the_versions(
    client, sign_in, django_assert_max_num_queries
):
    sign_in("change_route")
    model = RegisteredModelFactory()
    for _ in range(12):
        AliasFactory(
            version=ModelVersionFactory(registered_model=model),
            name=f"alias-{model.versions.count()}",
        )

    with django_assert_max_num_queries(20):
        client.get(list_url("modelversion"))


def test_sync_now_asks_a_worker(client, sign_in, queued):
    sign_in("change_registrysync")

    page = submit(client, reverse("admin:registry_route_sync_now"))

    assert queued == [("registry.tasks.sync_registry",)]
    assert page.redirect_chain[-1][0] == list_url("route")
    assert "A worker was asked" in page.content.decode()


def test_sync_now_says_so_when_the_broker_is_away(client, sign_in, monkeypatch):
    def refuse(**_):
        raise OperationalError("amqp://user:secret@host refused")

    monkeypatch.setattr(sync_registry, "apply_async", refuse)
    sign_in("change_registrysync")

    page = submit(client, reverse("admin:registry_route_sync_now")).content.decode()

    assert "broker cannot be reached" in page
    assert "secret" not in page


def test_make_default_asks_first_and_then_makes_the_route(client, sign_in, queued):
    person = sign_in("change_route")
    version = ModelVersionFactory()

    question = client.get(action_url(version, "make_default"))
    assert not Route.objects.exists()
    assert str(version) in question.content.decode()

    page = submit(client, action_url(version, "make_default"))

    route = Route.objects.get()
    assert (route.default_version, route.updated_by) == (version, person)
    assert "is the default now" in page.content.decode()


@pytest.mark.parametrize(
    "action",
    [
        "modelversion_make_default",
        "modelversion_start_canary",
        "modelversion_stop_canary",
        "modelversion_start_rollout",
        "route_promote_canary",
        "route_stop_canary",
    ],
)
def test_a_dialog_asks_why_and_the_history_keeps_it(action, client):
    client.force_login(User.objects.create_superuser("ada", password=None))
    route = RouteFactory(with_canary=True)
    new = ModelVersionFactory(registered_model=route.registered_model)
    row = new if "start" in action else route.canary_version
    row = route if action.startswith("route") else row
    url = reverse(f"admin:registry_{action}", args=[row.pk])

    assert 'name="why"' in client.get(url).content.decode()
    why = "Ada asked for it,\nticket 12."
    submit(client, url, why=why, weight_percent=5, canary=route.canary_version_id)

    record = Route.history.latest()
    assert record.history_type == "~"
    assert record.history_change_reason.endswith("Ada asked for it, ticket 12.")


def test_without_a_reason_the_history_says_what_was_done(client):
    client.force_login(User.objects.create_superuser("ada", password=None))
    route = RouteFactory(with_canary=True)
    number = route.canary_version.version

    submit(client, action_url(route.canary_version, "make_default"))

    reason = Route.history.latest().history_change_reason
    assert reason == f"v{number} became the default"


def test_start_canary_takes_the_weight_from_the_form(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()
    version = ModelVersionFactory(registered_model=route.registered_model)

    question = client.get(action_url(version, "start_canary")).content.decode()
    submit(client, action_url(version, "start_canary"), weight_percent=30)

    route.refresh_from_db()
    assert 'value="10"' in question
    assert (route.canary_version, route.canary_weight_percent) == (version, 30)


@pytest.mark.parametrize("weight", ["101", "-1", "", "many"])
def test_a_wrong_weight_comes_back_with_the_form(weight, client, sign_in):
    sign_in("change_route")
    route = RouteFactory()
    version = ModelVersionFactory(registered_model=route.registered_model)

    submit(client, action_url(version, "start_canary"), weight_percent=weight)

    route.refresh_from_db()
    assert route.canary_version is None


def test_a_refused_change_is_told(client, sign_in):
    sign_in("change_route")
    version = ModelVersionFactory(metadata_errors=["labels: too many."])

    page = submit(client, action_url(version, "make_default"))

    assert "labels: too many." in page.content.decode()
    assert not Route.objects.exists()


def test_a_dialog_goes_back_to_the_page_it_was_opened_on_and_nowhere_else(
    client, sign_in
):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    url = action_url(route.canary_version, "stop_canary")
    here = f"http://testserver{list_url('modelversion')}?q=x"

    for current, expected in (
        (here, here),
        # A browser would only scroll on the page that it shows already.
        (f"{here}#why", here),
        ("https://evil.example.org/", list_url("modelversion")),
    ):
        response = client.post(
            url,
            {"_form_submitted": "on"},
            headers={"HX-Request": "true", "HX-Current-URL": current},
        )
        assert response.headers["HX-Redirect"] == expected


def test_stop_and_promote_canary_work_from_the_route(client, sign_in):
    sign_in("change_route")
    stopped, promoted = RouteFactory(with_canary=True), RouteFactory(with_canary=True)
    canary = promoted.canary_version

    submit(client, reverse("admin:registry_route_stop_canary", args=[stopped.pk]))
    submit(client, reverse("admin:registry_route_promote_canary", args=[promoted.pk]))

    for route in (stopped, promoted):
        route.refresh_from_db()
        assert route.canary_version is None
    assert promoted.default_version == canary


@pytest.mark.parametrize("action", ["stop_canary", "promote_canary"])
def test_a_canary_that_came_since_the_question_is_left_alone(action, client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    seen, model = route.canary_version, route.registered_model
    url = reverse(f"admin:registry_route_{action}", args=[route.pk])

    question = client.get(url).content.decode()
    route.canary_version = ModelVersionFactory(registered_model=model)
    route.save()
    page = submit(client, url, canary=seen.pk).content.decode()

    assert str(seen) in question
    assert f'name="canary" value="{seen.pk}"' in question
    assert f"{route.canary_version} is the canary by now. Ask again." in page
    assert Route.objects.get().canary_version == route.canary_version


def test_a_route_offers_nothing_to_do_with_a_canary_that_it_has_not(client, sign_in):
    sign_in("change_route")
    without, with_one = RouteFactory(), RouteFactory(with_canary=True)

    for route, offered in ((without, False), (with_one, True)):
        page = client.get(reverse("admin:registry_route_change", args=[route.pk]))
        for action in ("stop_canary", "promote_canary"):
            url = reverse(f"admin:registry_route_{action}", args=[route.pk])
            assert (url in page.content.decode()) is offered


def test_publish_withdraw_and_fetch_work_from_the_version(client, sign_in, queued):
    sign_in("change_route", "change_modelversion")
    version = ModelVersionFactory(artifact_state="remote")

    submit(client, action_url(version, "publish"))
    version.refresh_from_db()
    assert version.published

    submit(client, action_url(version, "withdraw"))
    version.refresh_from_db()
    assert not version.published

    submit(client, action_url(version, "fetch_artifact"))
    assert queued == [(fetch_artifact.name, version.pk)]


def test_fetching_what_is_cached_asks_nobody_and_says_so(client, sign_in, queued, home):
    sign_in("change_modelversion")
    version = ModelVersionFactory()
    (home.artifacts / version.artifact_digest).mkdir(parents=True)

    page = submit(client, action_url(version, "fetch_artifact")).content.decode()

    assert queued == []
    assert f"The artifact of {version} is cached already." in page
    assert "A worker was asked" not in page


def test_fetching_says_so_when_the_broker_is_away(client, sign_in, monkeypatch):
    def refuse(*_, **__):
        raise OperationalError("connection refused")

    sign_in("change_modelversion")
    version = ModelVersionFactory(artifact_state="remote")
    monkeypatch.setattr(current_app, "send_task", refuse)

    page = submit(client, action_url(version, "fetch_artifact")).content.decode()

    assert "no worker was asked to fetch" in page
    assert "A worker was asked" not in page


ACTIONS = (
    "make_default",
    "start_canary",
    "stop_canary",
    "publish",
    "withdraw",
    "fetch_artifact",
)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("method", ["get", "post"])
def test_who_may_only_look_cannot_act_on_versions(
    action, method, client, sign_in, queued
):
    sign_in()
    route = RouteFactory(with_canary=True)

    data = {"_form_submitted": "on", "weight_percent": "50"}
    response = getattr(client, method)(action_url(route.canary_version, action), data)

    route.refresh_from_db()
    assert response.status_code == 403
    assert route.canary_weight_percent == 10
    assert queued == []


@pytest.mark.parametrize(
    "name",
    [
        "registry_route_stop_canary",
        "registry_route_promote_canary",
        "registry_registeredmodel_make_site_default",
    ],
)
def test_who_may_only_look_cannot_act_on_routes_and_models(name, client, sign_in):
    sign_in()
    route = RouteFactory(with_canary=True)
    row = route if "_route_" in name else route.registered_model

    response = submit(client, reverse(f"admin:{name}", args=[row.pk]))

    row.refresh_from_db()
    assert response.status_code == 403
    assert route.canary_version is not None


@pytest.mark.parametrize("model", LISTS)
def test_who_may_only_look_cannot_sync(model, client, sign_in, queued):
    sign_in()

    response = submit(client, reverse(f"admin:registry_{model}_sync_now"))

    assert response.status_code == 403
    assert queued == []


def test_anonymous_visitors_are_sent_to_the_login(client):
    response = client.post(action_url(ModelVersionFactory(), "make_default"))

    assert response.status_code == 302
    assert "login" in response.url


def model_form(client, model, **fields):
    url = reverse("admin:registry_registeredmodel_change", args=[model.pk])
    data = {
        "versions-TOTAL_FORMS": 0,
        "versions-INITIAL_FORMS": 0,
        **fields,
    }
    response = client.post(url, data)
    assert response.status_code == 302, response.content.decode()[:2000]
    model.refresh_from_db()


def test_trust_needs_its_own_permission(client, sign_in):
    person = sign_in("change_registeredmodel")
    model = RegisteredModelFactory()

    model_form(client, model, trusted="on", network="on", public="on")
    assert (model.trusted, model.network, model.public) == (False, False, True)

    person.user_permissions.add(
        Permission.objects.get(codename="trust_registeredmodel")
    )
    model_form(client, model, trusted="on", network="on", public="on")
    assert model.trusted
    assert model.network
    record = model.history.first()
    assert record.history_user == person
    assert "trusted" in record.history_change_reason


def test_a_model_says_how_its_processes_run(client, sign_in):
    sign_in("change_registeredmodel")
    model = RegisteredModelFactory()

    model_form(client, model, process='{"isolation": "group risk", "replicas": 2}')
    assert model.process == {"isolation": "group risk", "replicas": 2}

    model_form(client, model, process="")
    assert model.process == {}


@pytest.mark.parametrize(
    ("process", "sentence"),
    [
        ('{"isolation": "alone"}', "isolation: "),
        ('{"replicas": 0}', "replicas: 0 is less than the minimum of 1."),
        ('{"memory": 5}', "memory"),
        ("[1]", "Process: [1] is not of type"),
        ("own", "This is not JSON"),
    ],
)
def test_wrong_rules_for_processes_come_back_with_the_reason(
    process, sentence, client, sign_in
):
    sign_in("change_registeredmodel")
    model = RegisteredModelFactory()
    url = reverse("admin:registry_registeredmodel_change", args=[model.pk])
    data = {"versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0}

    page = client.post(url, {**data, "process": process}).content.decode()

    model.refresh_from_db()
    assert sentence in page
    assert html.escape(process) in page
    assert model.process == {}


def test_the_history_is_shown_but_cannot_be_posted_back(client, sign_in):
    sign_in("change_registeredmodel", "view_historicalregisteredmodel")
    model = RegisteredModelFactory(trusted=True)
    trusted_then = model.history.get().history_id
    model.trusted = False
    model.save()
    name = "admin:registry_registeredmodel_simple_history"
    url = reverse(name, args=[model.pk, trusted_then])

    shown = client.get(url)
    posted = client.post(url, {"public": "on"})

    model.refresh_from_db()
    assert shown.status_code == 200
    assert posted.status_code == 403
    assert not model.trusted


def test_only_one_model_is_the_sites_default(client, sign_in):
    sign_in("change_registeredmodel")
    before = RegisteredModelFactory(site_default=True)
    model = RegisteredModelFactory()
    name = "admin:registry_registeredmodel_make_site_default"

    submit(client, reverse(name, args=[model.pk]))

    for row in (before, model):
        row.refresh_from_db()
    assert (before.site_default, model.site_default) == (False, True)


def route_form(client, route, **changes):
    fields = {
        "enabled": "on",
        "default_version": route.default_version.pk,
        "canary_version": route.canary_version.pk if route.canary_version else "",
        "canary_weight_percent": route.canary_weight_percent,
        "shadow_version": "",
        "shadow_percent": route.shadow_percent,
        "shadow_tolerance_percent": route.shadow_tolerance_percent,
        "low_confidence_below": "",
        "input_rules": "{}",
        "cache_ttl_s": route.cache_ttl_s,
        "cache_scope": route.cache_scope,
        "alias": route.alias,
        "alias_follows": route.alias_follows,
        "alias_starts": route.alias_starts,
        "sticky": route.sticky,
        "fallback_on": route.fallback_on,
        "as_of": route.updated_at.isoformat(),
        **changes,
    }
    url = reverse("admin:registry_route_change", args=[route.pk])
    response = client.post(url, fields)
    route.refresh_from_db()
    return response


def test_a_shadow_is_set_with_its_share_and_cannot_be_the_default(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()
    other = ModelVersionFactory(registered_model=route.registered_model)

    refused = route_form(client, route, shadow_version=route.default_version.pk)
    assert "The default cannot be the shadow." in refused.content.decode()

    route_form(client, route, shadow_version=other.pk, shadow_percent=20)
    assert (route.shadow_version, route.shadow_percent) == (other, 20)

    # Without a version there is nothing to share.
    route_form(client, route, shadow_version="", shadow_percent=20)
    assert (route.shadow_version, route.shadow_percent) == (None, 0)


def test_a_shadow_and_its_share_are_set_together(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()
    other = ModelVersionFactory(registered_model=route.registered_model)

    no_share = route_form(client, route, shadow_version=other.pk, shadow_percent=0)
    too_much = route_form(client, route, shadow_version=other.pk, shadow_percent=101)
    no_version = route_form(client, route, shadow_version="", shadow_percent=20)

    assert "Give the shadow a share from 1 to 100." in no_share.content.decode()
    assert too_much.status_code == 200
    assert "Give the shadow a share" not in too_much.content.decode()
    assert "Choose a version for this share." in no_version.content.decode()
    assert (route.shadow_version, route.shadow_percent) == (None, 0)


def test_the_history_names_who_let_inputs_be_kept(client, sign_in):
    person = sign_in("change_route")
    route = RouteFactory()

    route_form(client, route, keeps_examples="on")

    assert route.keeps_examples
    client.force_login(User.objects.create_superuser("root"))
    url = reverse("admin:registry_route_history", args=[route.pk])
    history = client.get(url).content.decode()
    assert "keep examples" in history.lower()
    assert str(person) in history


def test_the_default_gets_what_the_canary_leaves(client, sign_in):
    person = sign_in("change_route")
    route = RouteFactory(with_canary=True)

    response = route_form(client, route, canary_weight_percent=50)

    assert response.status_code == 302
    assert (route.default_weight_percent, route.canary_weight_percent) == (50, 50)
    assert route.updated_by == person
    assert route.history.first().canary_weight_percent == 50


def test_a_canary_in_a_later_place_is_checked_as_in_the_first(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()
    model = route.registered_model
    gone = ModelVersionFactory(registered_model=model, signature={})

    for place in ("canary", "canary_2"):
        chosen = {f"{place}_version": gone.pk, f"{place}_weight_percent": 10}
        assert route_form(client, route, **chosen).status_code == 200
        assert route.canaries == ()


def test_a_canary_that_moves_up_is_not_checked_again(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    moves = ModelVersionFactory(registered_model=route.registered_model)
    chosen = {"canary_2_version": moves.pk, "canary_2_weight_percent": 20}
    assert route_form(client, route, **chosen).status_code == 302
    type(moves).objects.filter(pk=moves.pk).update(signature={})

    chosen |= {"canary_version": "", "canary_weight_percent": 0}
    response = route_form(client, route, **chosen)

    assert response.status_code == 302
    assert route.canaries == ((moves, 20),)


def test_a_canary_that_is_moved_by_hand_is_not_checked_again(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    canary = route.canary_version
    type(canary).objects.filter(pk=canary.pk).update(signature={})
    other = ModelVersionFactory(registered_model=route.registered_model)
    chosen = {"canary_version": other.pk, "canary_weight_percent": 20}
    chosen |= {"canary_2_version": canary.pk, "canary_2_weight_percent": 10}

    response = route_form(client, route, **chosen)

    assert response.status_code == 302
    assert route.canaries == ((other, 20), (canary, 10))


def test_a_canary_that_the_fallback_could_not_stand_in_for_is_refused(client, sign_in):
    sign_in("change_route")
    column = {"name": "a", "type": "double", "required": True}
    narrow = TENSOR_SIGNATURE | {"inputs": [column]}
    wide = narrow | {"inputs": [column, column | {"name": "b", "required": False}]}
    route = RouteFactory(default_version__signature=narrow)
    model = route.registered_model
    fallback = ModelVersionFactory(registered_model=model, signature=narrow)
    Route.objects.update(fallback_version=fallback)
    wider = ModelVersionFactory(registered_model=model, signature=wide)
    chosen = {
        "canary_version": wider.pk,
        "canary_weight_percent": 10,
        "fallback_version": fallback.pk,
        "fallback_on": ["MODEL_ERROR"],
    }

    refused = route_form(client, route, **chosen)

    assert "takes another input than" in refused.content.decode()
    assert route.canaries == ()


def test_several_canaries_are_edited_together_and_close_up(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    model = route.registered_model
    second, third = ModelVersionFactory.create_batch(2, registered_model=model)
    # The first is cleared, and the others move up.
    chosen = {
        "canary_version": "",
        "canary_2_version": second.pk,
        "canary_2_weight_percent": 20,
        "canary_4_version": third.pk,
        "canary_4_weight_percent": 30,
    }

    response = route_form(client, route, **chosen)

    assert response.status_code == 302
    assert route.canaries == ((second, 20), (third, 30))
    assert route.default_weight_percent == 50
    page = client.get(reverse("admin:registry_route_change", args=[route.pk]))
    page = page.content.decode()
    listed = client.get(reverse("admin:registry_route_changelist")).content.decode()
    assert f"v{third.version} 30 %" in listed
    # Each of several is promoted from its own page.
    assert "stop_canary" in page
    assert "promote_canary" not in page


@pytest.mark.parametrize(
    ("second", "weight", "words"),
    [
        (1, 90, "are 100 % together"),
        (0, 5, "has a share of the calls already"),
        (None, 5, "Choose a version for this weight"),
    ],
)
def test_canaries_that_do_not_go_together_are_refused(
    second, weight, words, client, sign_in
):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    other = ModelVersionFactory(registered_model=route.registered_model)
    keys = {0: route.canary_version.pk, 1: other.pk, None: ""}

    response = route_form(
        client,
        route,
        canary_2_version=keys[second],
        canary_2_weight_percent=weight,
    )

    assert words in html.unescape(response.content.decode())
    assert len(route.canaries) == 1


def test_one_of_several_canaries_is_chosen_to_be_stopped(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    first = route.canary_version
    second = ModelVersionFactory(registered_model=route.registered_model)
    routes.start_canary(second, weight_percent=20, by=None)
    url = reverse("admin:registry_route_stop_canary", args=[route.pk])

    question = client.get(url).content.decode()
    submit(client, url, canary=second.pk)

    route.refresh_from_db()
    assert f"v{second.version}, 20 %" in question
    assert route.canaries == ((first, 10),)


def test_a_route_without_canary_gives_all_to_the_default(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)

    route_form(client, route, canary_version="", canary_weight_percent=30)

    assert route.canary_version is None
    assert route.default_weight_percent == 100


def test_a_route_sets_how_batches_form(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()

    response = route_form(client, route, batching='{"max_batch_rows": 8}')

    assert response.status_code == 302
    assert route.batching == {"max_batch_rows": 8}


@pytest.mark.parametrize(("typed", "kept"), [("3", 3), ("", None), ("0", 2)])
def test_a_route_sets_how_many_processes_hold_its_versions(
    typed, kept, client, sign_in
):
    sign_in("change_route")
    route = RouteFactory(replicas=2)

    route_form(client, route, replicas=typed)

    assert route.replicas == kept


def test_a_route_caches_and_falls_back(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()
    older = ModelVersionFactory(registered_model=route.registered_model)

    response = route_form(
        client,
        route,
        cache_ttl_s=60,
        cache_scope="everyone",
        fallback_version=older.pk,
        fallback_answer='{"label": "unknown"}',
        fallback_on=["MODEL_ERROR"],
    )

    assert response.status_code == 302
    assert (route.cache_ttl_s, route.cache_scope) == (60, "everyone")
    assert route.fallback_version == older
    assert route.fallback_answer == {"label": "unknown"}
    assert route.fallback_on == ["MODEL_ERROR"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"canary_weight_percent": 101}, "less than or equal to 100"),
        ({"input_rules": '{"depth": {"min": 1}}'}, "no column"),
        ({"input_rules": '{"width": {"minimum": 1}}'}, "minimum"),
        ({"input_rules": '{"width": {"max_length": 1}}'}, "max_length is for text"),
        ({"input_rules": '{"width": {"enum": ["a"]}}'}, "enum must hold numbers only"),
        ({"input_rules": '{"width": {"optional": true}}'}, "cannot make it optional"),
        ({"input_rules": "[1]"}, "is not of type"),
        ({"batching": '{"max_wait_ms": 5000}'}, "greater than the maximum of 1000"),
        ({"batching": '{"max_batch_rows": 0}'}, "less than the minimum of 1"),
        ({"batching": '{"rows": 4}'}, "&#x27;rows&#x27; was unexpected"),
        ({"batching": '{"rows": 4}'}, "Batching: "),
        ({"cache_ttl_s": 86_401}, "less than or equal to 86400"),
        ({"cache_scope": "nobody"}, "Select a valid choice"),
        ({"alias": "", "alias_follows": "both"}, "Name the alias."),
        ({"alias": "v7"}, "Enter a valid value"),
        ({"fallback_answer": "{"}, "This is not JSON: Expecting property name"),
        ({"fallback_answer": "{"}, "Example: {&quot;label&quot;"),
        ({"fallback_answer": "[NaN]"}, "JSON has no NaN"),
        ({"fallback_answer": "[" * 5000}, "This is not JSON"),
        (
            {"input_rules": '{"width": {"min": 1}, "width": {"max": 9}}'},
            "&quot;width&quot; is there more than once",
        ),
        # Shown as it was typed, so that both are seen.
        (
            {"input_rules": '{"width": {"min": 1}, "width": {"max": 9}}'},
            "{&quot;width&quot;: {&quot;min&quot;: 1}, &quot;width&quot;:",
        ),
        ({"input_rules": r'{"\ud800": 1, "\ud800": 2}'}, "is there more than once"),
        ({"fallback_answer": "1" * 5000}, "This is not JSON"),
        ({"fallback_answer": r'{"\ud800": 1}'}, "This is not JSON"),
        ({"input_rules": r'"\ud800"'}, "This is not JSON"),
        ({"fallback_on": ["INVALID_INPUT"]}, "INVALID_INPUT is not one of"),
        ({"fallback_on": []}, "Choose at least one error"),
    ],
)
def test_a_wrong_route_comes_back_with_the_reason(changes, sentence, client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)

    response = route_form(client, route, **changes)

    assert response.status_code == 200
    assert sentence in response.content.decode()
    assert route.canary_weight_percent == 10


def test_an_emptied_box_gives_the_model_its_own_settings_back(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(
        input_rules={"width": {"min": 1}},
        batching={"max_batch_rows": 8},
        fallback_answer={"label": "unknown"},
    )

    response = route_form(
        client, route, input_rules="", batching=" ", fallback_answer=""
    )

    assert response.status_code == 302
    assert (route.input_rules, route.batching) == ({}, {})
    assert route.fallback_answer is None


def test_what_a_route_leaves_to_the_model_is_an_empty_box(client, sign_in):
    sign_in("change_route", "view_route")
    route = RouteFactory(batching={"max_batch_rows": 8})

    form = (
        client.get(reverse("admin:registry_route_change", args=[route.pk]))
        .context["adminform"]
        .form
    )

    assert form["input_rules"].value() == ""
    assert form["fallback_answer"].value() == ""
    assert "max_batch_rows" in str(form["batching"])


def test_a_route_shows_the_models_own_rules(client, sign_in):
    sign_in("change_route", "view_route")
    route = RouteFactory()
    version = route.default_version
    version.metadata |= {"rules": {"width": {"min": 3, "enum": [4, 5]}}}
    version.save()

    page = client.get(reverse("admin:registry_route_change", args=[route.pk]))

    assert "min 3, enum 4 | 5" in page.content.decode()


def test_a_route_takes_no_version_of_another_model_nor_one_twice(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(with_canary=True)
    other = ModelVersionFactory()

    for version in (other, route.default_version):
        response = route_form(client, route, canary_version=version.pk)
        assert response.status_code == 200
        assert route.canary_version not in (other, route.default_version)


def test_a_share_is_not_taken_without_a_version_to_give_it_to(client, sign_in):
    sign_in("change_route")
    route = RouteFactory()

    response = route_form(client, route, canary_weight_percent=50)

    assert response.context["adminform"].form.errors == {
        "canary_version": ["Choose a version for this weight."]
    }


def test_a_form_from_before_anothers_change_does_not_undo_it(client, sign_in):
    person = sign_in("change_route", "view_route")
    route = RouteFactory(with_canary=True)
    url = reverse("admin:registry_route_change", args=[route.pk])
    seen = client.get(url).context["adminform"].form["as_of"].value()
    route_form(client, route, cache_ttl_s=60)
    assert route.cache_ttl_s == 60

    late = route_form(client, route, as_of=seen, cache_ttl_s=0)

    assert late.context["adminform"].form.non_field_errors() == [
        f"{person} has changed this route since you opened this page. "
        "Load the page again and repeat your change."
    ]
    assert route.cache_ttl_s == 60
    again = client.get(url).context["adminform"].form["as_of"].value()
    assert route_form(client, route, as_of=again, cache_ttl_s=5).status_code == 302
    assert route.cache_ttl_s == 5


def test_a_routes_history_says_how_traffic_was_divided(client, sign_in):
    sign_in("change_route", "view_historicalroute")
    route = RouteFactory(with_canary=True)

    url = reverse("admin:registry_route_history", args=[route.pk])
    page = client.get(url).content.decode()

    default, canary = route.default_version.version, route.canary_version.version
    assert f"v{default} 90 %, v{canary} 10 %" in page


@pytest.mark.parametrize("object_id", ["abc", "9" * 30])
@pytest.mark.parametrize(
    "page",
    [
        "modelversion/{}/change/",
        "modelversion/{}/make_default/",
        "modelversion/{}/fetch_artifact/",
        "modelversion/{}/publish/",
        "modelversion/{}/start_canary/",
        "modelversion/{}/stop_canary/",
        "registeredmodel/{}/change/",
        "registeredmodel/{}/history/",
        "registeredmodel/{}/make_site_default/",
        "route/{}/change/",
        "route/{}/stop_canary/",
        "route/{}/promote_canary/",
    ],
)
def test_addresses_that_name_nothing_are_not_failures(client, sign_in, page, object_id):
    sign_in("change_route", "change_modelversion", "change_registeredmodel")

    path = "/admin/registry/" + page.format(object_id)

    assert client.get(path).status_code in (200, 302, 404)
    assert client.post(path, {"_form_submitted": "on"}).status_code < 500


def test_a_routes_history_answers_for_a_time_and_reverts_with_one_click(
    client, sign_in
):
    person = sign_in("change_route", "view_historicalroute")
    route = RouteFactory()
    first = route.history.first()
    canary = ModelVersionFactory(registered_model=route.registered_model)
    routes.start_canary(canary, weight_percent=20, by=person, why="a trial")
    page = reverse("admin:registry_route_history", args=[route.pk])

    now = timezone.now().strftime("%Y-%m-%dT%H:%M:%S.%f")
    shown = client.get(page, {"at": now}).content.decode()
    revert = reverse("admin:registry_route_revert", args=[route.pk, first.pk])
    assert f'action="{revert}"' in shown
    seen = html.unescape(re.search(r'name="seen" value="([^"]+)"', shown)[1])
    answer = client.post(revert, {"seen": seen}, follow=True).content.decode()

    default = route.default_version.version
    division = f"v{default} 80 %, v{canary.version} 20 %"
    assert f"{division}</strong>" in shown
    assert "Set by grace" in shown
    assert "a trial" in shown
    assert f"{division} became v{default} 100 %" in answer
    route.refresh_from_db()
    assert route.canary_version is None


@pytest.mark.parametrize(
    ("asked", "says"), [("soon", "is not a time"), ("2001-01-01T00:00", "no route")]
)
def test_a_routes_history_says_why_it_has_no_answer(client, sign_in, asked, says):
    sign_in("change_route", "view_historicalroute")
    page = reverse("admin:registry_route_history", args=[RouteFactory().pk])

    assert says in client.get(page, {"at": asked}).content.decode()


def test_only_who_may_move_routes_reverts_one(client, sign_in):
    person = sign_in("view_historicalroute")
    route = RouteFactory()
    first = route.history.first()
    canary = ModelVersionFactory(registered_model=route.registered_model)
    routes.start_canary(canary, weight_percent=20, by=person)
    revert = reverse("admin:registry_route_revert", args=[route.pk, first.pk])

    page = reverse("admin:registry_route_history", args=[route.pk])
    assert revert not in client.get(page).content.decode()
    assert client.get(revert).status_code == 405
    assert client.post(revert).status_code == 403
    route.refresh_from_db()
    assert route.canary_version == canary


def test_a_route_tells_where_its_alias_stands_and_what_hinders_it(client, sign_in):
    sign_in("change_route")
    route = RouteFactory(alias="champion", alias_follows="both")
    AliasFactory(version=route.default_version)
    AliasState.objects.create(route=route, wanted_version=7, problem="MLflow is away.")

    page = client.get(
        reverse("admin:registry_route_change", args=[route.pk])
    ).content.decode()

    assert "at the last sync; it has still to be moved to v7" in page
    assert "Alias champion: MLflow is away." in page
    assert (
        "Alias champion: MLflow is away."
        in client.get(list_url("route")).content.decode()
    )


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("iris v3", ["iris v3"]),
        ("iris", ["iris v3", "iris v2"]),
        ("v3", ["other v3", "iris v3"]),
        ("iris v4", []),
        ("v99999999999999", []),
    ],
)
def test_versions_are_found_by_name_and_number(admin_client, term, found):
    iris = RegisteredModelFactory(name="iris")
    for number, model in (
        (2, iris),
        (3, iris),
        (3, RegisteredModelFactory(name="other")),
    ):
        ModelVersionFactory(registered_model=model, version=number)

    url = reverse("admin:registry_modelversion_changelist")
    page = admin_client.get(url, {"q": term})

    rows = page.context["cl"].result_list
    assert [str(version) for version in rows] == found
