"""The admin shows hosts and engines, and lets nobody edit them."""

import re

import pytest
from django.urls import reverse

from inference.models import Engine, LoadedVersion
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory
from tests.factories_serving import (
    EngineFactory,
    HostFactory,
    lacking,
)

pytestmark = pytest.mark.django_db

MODELS = ["host", "engine"]


@pytest.fixture
def operator(client):
    client.force_login(UserFactory(is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def rows(db):
    engine = Engine.objects.create(
        name="cpu", address="/x", state="unreachable", error="the engine is not there"
    )
    return {
        "host": HostFactory(error="its report cannot be read"),
        "engine": engine,
        "loadedversion": LoadedVersion.objects.create(
            engine=engine, model="m", version=4, state="failed", error="skewed outputs"
        ),
    }


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_list_says_where_its_rows_come_from(operator, model):
    answer = operator.get(reverse(f"admin:inference_{model}_changelist"))

    assert answer.status_code == 200
    assert b'<p class="mb-4' in answer.content


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("host", "its report cannot be read"),
        ("engine", "the engine is not there"),
    ],
)
def test_lists_show_what_is_wrong(operator, rows, model, says):
    answer = operator.get(reverse(f"admin:inference_{model}_changelist"))

    assert says in answer.content.decode()


def test_an_engine_shows_its_versions_and_their_errors(operator, rows):
    url = reverse("admin:inference_engine_change", args=[rows["engine"].pk])

    assert "skewed outputs" in operator.get(url).content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_nothing_can_be_changed(operator, rows, model):
    change = reverse(f"admin:inference_{model}_change", args=[rows[model].pk])
    add = reverse(f"admin:inference_{model}_add")

    assert operator.get(change).status_code == 200
    assert operator.post(change, {}).status_code == 403
    assert operator.get(add).status_code == 403


def test_an_engine_shows_its_device_and_how_its_versions_run(operator, rows):
    engine = rows["engine"]
    engine.device_title = "NVIDIA H200"
    engine.device_total_bytes, engine.device_used_bytes = 8 * 2**30, 2 * 2**30
    engine.save()
    rows["loadedversion"].notes = "precision bfloat16"
    rows["loadedversion"].save()

    url = reverse("admin:inference_engine_change", args=[engine.pk])
    page = operator.get(url).content.decode()

    assert "NVIDIA H200" in page
    assert "2.0\xa0GB of 8.0\xa0GB in use" in page
    assert "precision bfloat16" in page


WALLS = {
    "files": "it reads its artifact and environment, and writes its scratch folder",
    "network": "open: all sockets, because this kernel has no filters",
}


def page_of(client, row):
    kind = f"admin:inference_{row._meta.model_name}_change"
    return client.get(reverse(kind, args=[row.pk])).content.decode()


def test_a_host_shows_its_memory_its_walls_and_what_does_not_fit(operator):
    version = ModelVersionFactory(registered_model__name="credit", version=3)
    host = HostFactory(
        devices=["cpu", "cuda:0"],
        walls=WALLS,
        lacking=[lacking(version, "It needs 3 GB; 1 GB is free.")],
    )

    page = page_of(operator, host)

    assert "cpu, cuda:0" in page
    assert "2.0\xa0GB of 8.0\xa0GB" in page
    assert "credit v3: It needs 3 GB; 1 GB is free." in page
    assert "open: all sockets" in page
    assert "Trust only models whose authors" in page


def test_a_host_whose_walls_all_hold_needs_no_warning(operator):
    host = HostFactory(walls={"files": WALLS["files"]})

    page = page_of(operator, host)

    assert WALLS["files"] in page
    assert "Trust only models whose authors" not in page
    changelist = operator.get(reverse("admin:inference_host_changelist"))
    assert "all hold" in changelist.content.decode()


def test_the_list_of_hosts_counts_what_is_open_and_what_does_not_fit(operator):
    HostFactory(walls=WALLS, lacking=[lacking(ModelVersionFactory(), "3 GB.")])

    page = operator.get(reverse("admin:inference_host_changelist")).content.decode()

    assert "1 of 2 open" in page
    assert "1 version<" in page


def test_a_host_on_day_one_says_that_everything_fits(operator):
    page = page_of(operator, HostFactory(devices=[]))

    assert "Everything fits." in page
    assert "none yet" in page


@pytest.mark.parametrize("model", MODELS)
def test_what_nobody_changes_leads_to_no_history(operator, rows, model):
    history = reverse(f"admin:inference_{model}_history", args=[rows[model].pk])

    assert f'href="{history}' not in page_of(operator, rows[model])


def test_an_empty_list_offers_only_what_can_be_done(operator):
    url = reverse("admin:inference_engine_changelist")

    empty = operator.get(url).content.decode()
    searched = operator.get(url, {"q": "nothing"}).content.decode()

    assert "Nothing here yet." in empty
    assert "Show all" not in empty
    assert "Nothing matches." in searched
    assert "Show all" in searched


def test_a_host_that_reported_no_walls_is_taken_to_have_none(operator):
    assert "Nothing has been reported yet" in page_of(operator, HostFactory())


def test_a_host_that_was_not_seen_lately_is_away(operator):
    HostFactory(seen_at="2026-01-01T00:00Z")

    page = operator.get(reverse("admin:inference_host_changelist")).content.decode()

    assert "away" in page


def test_a_host_leads_to_its_engines(operator):
    host = HostFactory(name="alpha")
    EngineFactory(name="of-alpha", host="alpha")
    EngineFactory(name="of-beta", host="beta")
    [link] = re.findall(r'href="([^"]+\?host=[^"]+)"', page_of(operator, host))

    page = operator.get(link).content.decode()

    assert "of-alpha" in page
    assert "of-beta" not in re.sub(r"<option.*?</option>", "", page)


def test_an_engine_says_what_it_is_and_what_holds_it(operator):
    engine = EngineFactory(
        kind=Engine.Kind.OWN,
        host="alpha",
        environment="base",
        walls=WALLS,
        memory_limit_bytes=2**30,
        memory_samples=[[0, 2**20], [60, 2**21]],
    )

    page = page_of(operator, engine)

    for text in ("one version", "alpha", "open: all sockets", "1.0\xa0GB beyond"):
        assert text in page
    assert "1.0\xa0MB at first, 2.0\xa0MB now" in page


def test_the_engine_of_a_device_needs_no_walls(operator):
    assert "runs torch programs" in page_of(operator, EngineFactory())


TRACE = "no weights\nTraceback (most recent call last):\n  File model.py, line 3"


def test_a_trace_is_one_click_away_in_every_list(operator):
    HostFactory(error=TRACE)
    EngineFactory(error=TRACE)

    for model in MODELS:
        page = operator.get(reverse(f"admin:inference_{model}_changelist"))
        text = page.content.decode()
        assert "model.py" in text, model
        assert "model.py" not in re.sub(r"(?s)<details.*?</details>", "", text), model


@pytest.mark.parametrize(
    "path", ["loadedversion/", "servingroute/3/change/", "snapshotstate/?q=x"]
)
def test_a_bookmark_of_a_page_that_is_gone_leads_to_the_routes(operator, path):
    answer = operator.get(f"/admin/inference/{path}", follow=True)

    assert answer.redirect_chain == [("/admin/registry/route/", 302)]
    assert answer.status_code == 200
