"""The page on which versions are tried out, in a real Chromium."""

import json
import threading
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import ApiKey
from inference.api import driver
from inference.models import ServingRoute
from registry.models import Route
from tests import accessibility
from tests.browsing import CHROMIUM, Visit
from tests.factories import UserFactory
from tests.factories_registry import (
    TENSOR_SIGNATURE,
    ModelVersionFactory,
    RouteFactory,
)
from tests.factories_serving import LoadedVersionFactory, ServingRouteFactory
from tests.fakes import FakeJobEngine

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
REGRESSION = {
    "metadata": {"task": "regression", "columns": ["width", "height"]},
    "signature": {
        "inputs": TENSOR_SIGNATURE["inputs"],
        "outputs": [
            {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}
        ],
    },
}
NAME = "x" * 200


class Client(FakeJobEngine):
    """An engine's client as Django uses it."""

    def close(self):
        pass


@pytest.fixture
def engines():
    """Two engines by name; the second adds a half to rows that begin with 2 or more."""
    default, canary = Client(), Client()
    canary.answer = lambda data: data.sum(axis=1) + 0.5 * (data[:, 0] >= 2)
    return {"default.sock": default, "canary.sock": canary}


@pytest.fixture
def versions(engines, home, publish, monkeypatch):
    """A default and a canary of one model, both loaded."""
    made = driver.ApiDriver(home, make_client=lambda path: engines[path.name])
    monkeypatch.setattr(driver, "current", lambda: made)
    route = RouteFactory(
        with_canary=True,
        default_version=ModelVersionFactory(
            registered_model__name=NAME, description="d" * 200, **REGRESSION
        ),
        **{f"canary_version__{key}": value for key, value in REGRESSION.items()},
    )
    for version, name in (
        (route.default_version, "default"),
        (route.canary_version, "canary"),
    ):
        LoadedVersionFactory(
            of=version, engine__name=name, engine__address=f"/run/{name}.sock"
        )
    ServingRouteFactory(of=route)
    publish()
    yield route.default_version, route.canary_version
    made.close()


@pytest.fixture
def visit(browser, live_server, versions):
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    context.set_default_timeout(30_000)
    visit = Visit(context.new_page(), live_server.url)
    visit.come_in(UserFactory(is_staff=True, is_superuser=True))
    visit.open(f"/admin/registry/modelversion/{versions[1].pk}/try/")
    yield visit
    context.close()


@pytest.fixture
def send(visit, publish):
    """Return a function that sends, waits for the outcome and returns its words."""

    def click():
        page = visit.page
        page.click("#try >> text=Send")
        for _ in range(100):
            # As the controller does at once: the page's new key is in no snapshot yet.
            publish()
            page.wait_for_timeout(200)
            said = page.inner_text("#try-status")
            if not said.startswith(("Sending", "Waiting")):
                return said
        raise AssertionError(said)

    return click


def choose(visit, source):
    visit.page.select_option("#try-source", source)


def table_of(visit):
    lines = visit.page.locator("#try-table tr").all()
    return [line.locator("th, td").all_inner_texts() for line in lines]


def assert_in_order(visit):
    # A button under the mouse has another colour.
    visit.page.mouse.move(0, 0)
    for width, scheme in ((1280, "light"), (390, "light"), (390, "dark")):
        visit.look(width, scheme)
        assert visit.overflow_px <= 0
        assert accessibility.problems(visit.page) == []
    visit.look(1280)
    # A new key is unknown for a moment, and bad input is refused.
    assert [each for each in visit.complaints if "status of 4" not in each] == []


def test_rows_are_called_on_two_versions_and_compared(visit, send, versions, engines):
    default, canary = (str(version.version) for version in versions)
    assert visit.page.input_value("#try-beside") == default

    said = send()

    assert said == "1 row answered."
    assert table_of(visit) == [
        ["Row", "Compared", f"v{canary}", f"v{default}"],
        ["1", "same", "3", "3"],
    ]
    assert visit.page.inner_text("#try-difference") == "0 of 1 row differs."
    key = ApiKey.objects.get()
    assert (key.mode, key.name[:6]) == ("test", "Try it")

    visit.page.fill("[data-name=width]", "5")
    said = send()

    assert table_of(visit)[1] == ["1", "differs by 0.500", "7.5", "7"]
    assert visit.page.inner_text("#try-difference") == (
        "1 of 1 row differs; the largest difference is 0.5000, in row 1."
    )
    assert ApiKey.objects.count() == 1
    assert engines["canary.sock"].calls == [[1.0], [5.0]]
    assert_in_order(visit)


def test_a_file_of_a_thousand_rows_is_compared(visit, send, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("height,width\n" + "1,0\n" * 997 + "1,2\n1,3\n1,4\n")
    choose(visit, "file")
    visit.page.set_input_files("#try-file", file)

    said = send()

    assert said == "1000 rows answered."
    assert visit.page.inner_text("#try-difference").startswith(
        "3 of 1000 rows differ; the largest difference is 0.5000, in row 998."
    )
    # What differs comes first.
    assert [line[0] for line in table_of(visit)[1:5]] == ["998", "999", "1000", "1"]
    assert visit.page.inner_text("#try-rest") == "900 more rows are not shown."
    assert_in_order(visit)


def test_what_is_wrong_is_said(visit, send, tmp_path):
    page = visit.page
    page.fill("[data-name=width]", "")
    assert "INVALID_INPUT" in send()
    assert "width" in page.inner_text("#try-problems")

    file = tmp_path / "rows.csv"
    file.write_text("width;height\n1;2\n")
    choose(visit, "file")
    assert send() == "Choose a file."
    page.set_input_files("#try-file", file)
    assert send() == "The header does not fit the model. Separate columns with commas."
    assert page.locator("#try-problems li").count() == 3

    choose(visit, "json")
    page.fill("#try-json", "{")
    assert send().startswith("JSON: ")
    page.fill("#try-json", '{"rows": []}')
    assert send() == "Write a list of rows, or an object with “instances”."
    page.fill("#try-json", "[]")
    assert send() == "There are no rows."
    rows = json.dumps([{"width": 1, "height": 1}] * 1001)
    page.fill("#try-json", rows)
    assert send() == "There are 1001 rows; at most 1000 can be tried at once."
    assert_in_order(visit)


def test_who_is_signed_out_meanwhile_is_told(visit, send, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("width,height\n1,2\n")
    visit.page.context.clear_cookies()

    assert send() == "No key could be made. Sign in again."
    choose(visit, "file")
    visit.page.set_input_files("#try-file", file)
    assert send() == "The file cannot be read now. Sign in again."


def test_a_large_text_is_refused_in_words(visit, send):
    choose(visit, "json")
    row = {"width": 1, "height": 2, "note": "x" * 5_000_000}
    visit.page.evaluate(
        "text => document.getElementById('try-json').value = text", json.dumps([row])
    )

    said = send()

    assert "INVALID_INPUT" in said or "TOO_LARGE" in said


def test_a_version_that_went_away_meanwhile_is_said(visit, send, versions, publish):
    assert send() == "1 row answered."
    default, canary = versions
    Route.objects.filter(canary_version=canary).update(
        canary_version=None, canary_weight_percent=0, default_weight_percent=100
    )
    ServingRoute.objects.update(
        canary_version=None, canary_weight_percent=0, default_weight_percent=100
    )
    publish()

    said = send()

    assert f"v{canary.version}: 404 NOT_FOUND" in said
    assert [line[:2] for line in table_of(visit)] == [
        ["Row", f"v{default.version}"],
        ["1", "3"],
    ]


def test_a_slow_call_can_be_cancelled(visit, engines, send):
    assert send() == "1 row answered."
    page = visit.page
    go_on = threading.Event()
    engines["canary.sock"].meanwhile = lambda: go_on.wait(20)

    page.click("#try >> text=Send")
    page.wait_for_selector("#try-status:has-text('Waiting for')")
    page.click("#try-cancel")
    page.wait_for_selector("#try-status:has-text('Cancelled.')")
    go_on.set()

    assert page.locator("#try-cancel").is_hidden()


def test_large_whole_numbers_are_sent_and_shown_digit_by_digit(visit, send):
    page, bodies = visit.page, []
    page.on("request", lambda it: bodies.append(it.post_data or ""))
    page.fill("[data-name=width]", "9007199254740993")
    send()
    choose(visit, "json")
    page.fill("#try-json", '[{"width": -9007199254740995, "height": 0.5}]')
    send()

    sent = [body for body in bodies if body.startswith('{"instances"')]
    assert '"width":9007199254740993' in sent[0]
    assert sent[-1] == '{"instances":[{"width":-9007199254740995,"height":0.5}]}'
    text = '{"id":9007199254740993,"list":[1,2.5,18446744073709551615],"e":1e+30}'
    url = page.evaluate("document.querySelector('script[src*=try_version]').src")
    url = url.replace("try_version", "exact_json")
    read = "async ([url, text]) => JSON.stringify((await import(url)).parse(text))"
    assert page.evaluate(read, [url, text]) == text


def test_large_whole_numbers_of_two_answers_are_compared_by_their_digits(visit):
    page = visit.page
    base = page.evaluate("document.querySelector('script[src*=try_version]').src")
    compare = """async ([json, compare, one, other]) => {
        const { parse } = await import(json);
        return (await import(compare)).compare(parse(one), parse(other)).same;
    }"""
    modules = [
        base.replace("try_version", it) for it in ("exact_json", "compare_answers")
    ]
    one, other = '{"id": 9007199254740993}', '{"id": 9007199254740992}'

    assert page.evaluate(compare, [*modules, one, one])
    assert not page.evaluate(compare, [*modules, one, other])


def test_a_key_that_ended_meanwhile_is_replaced_at_once(visit, send, publish):
    assert send() == "1 row answered."
    ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    publish()
    began = time.monotonic()

    assert send() == "1 row answered."

    assert time.monotonic() - began < 8
    assert ApiKey.objects.count() == 2
