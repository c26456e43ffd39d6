"""Pages in a real Chromium: complete, fit for a phone, self-contained."""

from collections.abc import Iterator

import pytest

from tests import accessibility
from tests.browsing import CHROMIUM, Visit
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import (
    EngineFactory,
    HostFactory,
    LoadedVersionFactory,
    VersionConditionFactory,
    VersionEventFactory,
    lacking,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

PASSWORD = "correct horse battery staple"
WIDTHS = [1280, 390]


@pytest.fixture
def desktop(browser, live_server) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    context.set_default_timeout(60_000)
    yield Visit(context.new_page(), live_server.url)
    context.close()


@pytest.fixture(params=WIDTHS, ids=["desktop", "phone"])
def visit(request, desktop) -> Visit:
    desktop.look(request.param)
    return desktop


@pytest.fixture
def boss():
    return UserFactory.create(is_staff=True, is_superuser=True)


def assert_fits(visit):
    """Assert that the page fits every width and reports no error."""
    for width in WIDTHS:
        visit.look(width)
        assert visit.overflow_px <= 0
    assert visit.complaints == []


@pytest.fixture
def route(publish):
    """Publish a model with a route, so that the docs know it."""

    def make(**kwargs):
        made = _route(**kwargs)
        publish()
        return made

    return make


def _route(**kwargs):
    version = ModelVersionFactory.create(
        registered_model__name="breast-cancer",
        **{"registered_model__public": True, **kwargs},
    )
    return RouteFactory.create(default_version=version)


@pytest.mark.parametrize("path", ["/", "/docs/errors", "/admin/login/"])
def test_a_page_fits_and_loads_only_its_own_things(desktop, path, route):
    route()

    desktop.open(path)

    assert_fits(desktop)


def test_swagger_ui_shows_the_typed_operation_with_its_example(desktop, route):
    route()
    page = desktop.page
    head = "#operations-breast-cancer-breastCancerPredict button >> nth=0"

    desktop.open("/docs/", head.partition(" ")[0])
    for width in WIDTHS:
        desktop.look(width)
        page.click(head)
        assert '"width": 1' in page.input_value(".body-param__text")
        assert desktop.overflow_px <= 0
        page.click(head)
        page.wait_for_selector(".body-param__text", state="hidden")

    assert desktop.complaints == []


def test_a_key_typed_into_swagger_ui_shows_what_it_may_call(visit, route):
    route(registered_model__public=False)
    operation = "#operations-breast-cancer-breastCancerPredict"
    visit.open("/docs/", ".opblock")
    assert not visit.page.locator(operation).is_visible()

    visit.page.click(".auth-wrapper .authorize")
    visit.page.fill("#api_key_value", issue_key().token)
    visit.page.click(".modal-ux button[type=submit] >> nth=0")
    visit.page.wait_for_selector(operation)

    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("path", "drawn"),
    [("/docs/", ".opblock"), ("/docs/redoc/", '[id="operation/getUsage"]')],
)
def test_the_docs_can_be_read_in_light_and_dark(desktop, route, path, drawn, scheme):
    route()
    page = desktop.page
    desktop.look(1280, scheme)

    desktop.open(path, drawn)

    problems = accessibility.problems(page)
    assert [problem for problem in problems if "contrast" in problem] == []
    assert page.locator("button a[href], button button, label a[href]").count() == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 22, 29)") == (scheme == "dark")
    assert desktop.complaints == []


def test_the_reference_names_errors_and_leaves_explaining_to_their_page(desktop, route):
    route()

    desktop.open("/docs/redoc/", '[id="operation/getUsage"]')

    operations = desktop.page.locator('[id^="operation/"]').count()
    height = desktop.page.evaluate("document.documentElement.scrollHeight")
    # It was 3,100 for each.
    assert height / operations < 1800


def test_redoc_draws_the_document(desktop, route):
    route()

    desktop.open("/docs/redoc/", '[id="tag/breast-cancer"]')

    assert_fits(desktop)


def test_a_person_logs_in_and_sees_the_dashboard(visit, boss):
    visit.log_in(boss.username, PASSWORD)
    visit.settle()

    assert visit.page.locator("text=First steps").is_visible()
    assert visit.overflow_px <= 0
    assert visit.complaints == []


def test_the_dashboard_draws_its_chart(desktop, boss):
    from tests.config.pages.test_dashboard import spend

    spend(issue_key().key.customer, (3, {}))
    desktop.come_in(boss)

    desktop.open("/admin/")

    drawn = desktop.page.evaluate(
        "Chart.getChart(document.querySelector('canvas.chart')).data.datasets.length"
    )
    assert drawn == 5
    assert_fits(desktop)


@pytest.mark.parametrize(
    "page", ["registry/modelversion", "auth/user", "auth/user/add"]
)
def test_the_admin_stays_within_its_policy(desktop, boss, page):
    _route()
    desktop.come_in(boss)

    desktop.open(f"/admin/{page}/")

    for width in WIDTHS:
        desktop.look(width)
        assert desktop.page.locator("#content").is_visible()
    assert desktop.complaints == []


def test_the_pages_of_a_route_and_a_version_fit_and_fold_what_is_long(desktop, boss):
    digest = "f3fbf1a91d5e016a82a6f8c37dea3c82bc007711ede101411041970f4eb1ee2e"
    route = _route(artifact_digest=digest)
    page = desktop.page
    desktop.come_in(boss)

    desktop.open(f"/admin/registry/modelversion/{route.default_version.pk}/change/")
    for width in WIDTHS:
        desktop.look(width)
        assert desktop.overflow_px <= 0
        assert not page.is_visible("td >> text=width")
        page.click("summary:has-text('column')")
        assert page.is_visible("td >> text=width")
        page.click("summary:has-text('column')")

    desktop.open(f"/admin/registry/route/{route.pk}/change/")
    for width in WIDTHS:
        desktop.look(width)
        assert page.is_checked("input[name=fallback_on][value=OVERLOADED]")
        assert page.input_value("#id_batching") == ""
    assert_fits(desktop)


def test_names_of_200_characters_wrap_and_stay_as_they_are(desktop, boss):
    name = "iris_" + "x" * 195
    route = RouteFactory.create(
        default_version=ModelVersionFactory.create(registered_model__name=name)
    )
    customer = issue_key(CustomerFactory.create(name="y" * 200)).key.customer
    desktop.come_in(boss)

    for page in (
        "/admin/registry/modelversion/",
        f"/admin/registry/route/{route.pk}/history/",
        f"/admin/accounts/apikey/add/?customer={customer.pk}",
    ):
        desktop.open(page)
        assert_fits(desktop)
    desktop.open(f"/admin/registry/registeredmodel/{route.registered_model_id}/change/")

    assert desktop.page.locator(f'[title="{name}"]').last.inner_text() == name


def test_a_person_s_page_fits_with_the_lists_of_groups(desktop, boss):
    desktop.come_in(boss)

    desktop.open(f"/admin/auth/user/{boss.pk}/change/", ".selector-chosen")

    assert desktop.page.locator(".selector-chosen").count() == 2
    assert_fits(desktop)


def test_the_admin_is_shown_where_scripts_are_off(browser, live_server, boss):
    key = issue_key().key
    with browser.new_context(java_script_enabled=False) as context:
        without = Visit(context.new_page(), live_server.url)

        without.open("/admin/login/", "#id_username")
        assert without.page.is_visible("#id_username")
        without.come_in(boss)
        without.open(f"/admin/accounts/apikey/{key.pk}/rotate/", "h1")
        without.page.click("button:has-text('Rotate')")

        assert without.page.is_visible("text=/my_live_/ >> nth=0")
    assert key.customer.api_keys.count() == 2


def test_a_quarantined_version_is_released_on_its_page(visit, boss):
    version = _route().default_version
    VersionConditionFactory.create(of=version, reason="It died twice.")
    page = visit.page
    visit.come_in(boss)
    visit.open("/admin/registry/modelversion/")

    page.click("text=Why?")
    page.wait_for_selector("text=Where it runs")
    visit.settle()
    top = page.evaluate("document.getElementById('why').getBoundingClientRect().top")
    header = page.evaluate("document.getElementById('header-inner')?.offsetHeight ?? 0")
    assert header <= top < 400
    if page.viewport_size["width"] < 1000:
        page.click("text=more_horiz >> nth=0")
    page.click("a:has-text('Release')")
    page.click("#dialog button:has-text('Release')")

    page.wait_for_selector("text=was released")
    assert page.is_visible("text=waiting")
    assert visit.overflow_px <= 0
    assert visit.complaints == []


def test_a_trace_is_opened_with_the_keyboard(desktop, boss):
    version = _route().default_version
    trace = "Traceback (most recent call last):\n  File model.py"
    VersionEventFactory.create(of=version, text="KeyError: 7", detail=trace)
    page = desktop.page
    desktop.come_in(boss)
    desktop.open(f"/admin/registry/modelversion/{version.pk}/change/")
    assert not page.is_visible("pre:has-text('model.py')")

    page.focus("summary:has-text('Trace')")
    page.keyboard.press("Enter")

    assert page.is_visible("pre:has-text('model.py')")
    assert_fits(desktop)


LONG = "x" * 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_hosts_and_engines_fit_whatever_they_are_called(desktop, boss, scheme):
    walls = {"files": f"open: {LONG}", "network": "none"}
    samples = [[0, 2**20], [60, 2**21]]
    engine = EngineFactory.create(host=LONG, walls=walls, memory_samples=samples)
    version = RouteFactory.create(
        default_version__registered_model__name=LONG
    ).default_version
    lacks = [lacking(version, "It needs 3 GB.")]
    host = HostFactory.create(name=LONG, walls=walls, lacking=lacks)
    LoadedVersionFactory.create(of=version, engine=engine, state="failed", error=LONG)
    desktop.come_in(boss)

    for path in (
        f"host/{host.pk}/change/",
        f"engine/{engine.pk}/change/",
        "host/",
        "engine/",
    ):
        desktop.open(f"/admin/inference/{path}")
        desktop.look(1280, scheme)
        assert_fits(desktop)
    desktop.open(f"/admin/registry/modelversion/{version.pk}/change/")
    assert_fits(desktop)


# Texts that reach beyond the box that they are in, or under what is beside it.
CUT = """() => [...document.querySelectorAll("#result_list td, #result_list tbody th")]
  .filter((cell) => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth + 1)
  .map((cell) => cell.className.split(" ")[0])"""


def test_nothing_in_a_list_is_cut_on_a_phone(desktop, boss):
    route = RouteFactory.create(
        default_version__registered_model__name=LONG, with_canary=True
    )
    VersionConditionFactory.create(of=route.canary_version, reason="It died twice.")
    error = "ValueError: the model cannot read this row, whose name is " + LONG
    engine = EngineFactory.create(host=LONG, name=LONG, error=error)
    HostFactory.create(name=LONG, error=error)
    VersionEventFactory.create(
        of=route.default_version, engine=engine.name, host=LONG, text=error
    )
    desktop.come_in(boss)
    desktop.look(390)

    for path in (
        "registry/route/",
        "registry/modelversion/",
        "inference/host/",
        "inference/engine/",
        "inference/versionevent/",
    ):
        desktop.open(f"/admin/{path}", "[data-label]")
        assert desktop.page.evaluate(CUT) == [], path


def test_columns_are_called_on_a_phone_as_on_a_large_screen(desktop, boss):
    HostFactory.create()
    desktop.come_in(boss)
    desktop.look(390)

    desktop.open("/admin/inference/host/", "[data-label='Memory in use']")

    cell = desktop.page.locator("#result_list .field-memory")
    style = "cell => getComputedStyle(cell, '::before').textTransform"
    assert cell.evaluate(style) == "none"
