"""What people see, in a real Chromium: complete, fit for a phone, self-contained."""

from collections.abc import Iterator

import pytest

from tests.browsing import CHROMIUM, Visit, launched
from tests.factories import UserFactory, issue_key
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def visit(request, browser, live_server) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": request.param, "height": 844})
    context.set_default_timeout(60_000)
    yield Visit(context.new_page(), live_server.url)
    context.close()


def _route(**kwargs):
    version = ModelVersionFactory.create(
        registered_model__name="breast-cancer",
        registered_model__public=True,
        **kwargs,
    )
    return RouteFactory.create(default_version=version)


@pytest.mark.parametrize("path", ["/", "/docs/errors", "/admin/login/"])
def test_a_page_fits_and_loads_only_its_own_things(visit, path):
    _route()

    visit.open(path)

    assert visit.overflow_px <= 0
    assert visit.complaints == []


def test_swagger_ui_shows_the_typed_operation_with_its_example(visit):
    _route()

    visit.open("/docs/")
    visit.page.click("#operations-breast-cancer-predictBreastCancer button >> nth=0")

    body = visit.page.input_value(".body-param__text")
    assert '"width": 1' in body
    assert visit.overflow_px <= 0
    assert visit.complaints == []


def test_a_key_typed_into_swagger_ui_shows_what_it_may_call(visit):
    route = _route()
    route.registered_model.public = False
    route.registered_model.save()
    operation = "#operations-breast-cancer-predictBreastCancer"
    visit.open("/docs/")
    assert not visit.page.locator(operation).is_visible()

    visit.page.click(".auth-wrapper .authorize")
    visit.page.fill("#api_key_value", issue_key().token)
    visit.page.click(".modal-ux button[type=submit] >> nth=0")
    visit.page.wait_for_selector(operation)

    assert visit.complaints == []


def test_redoc_draws_the_document(visit):
    _route()

    visit.open("/docs/redoc/")
    visit.page.wait_for_selector('[id="tag/breast-cancer"]', state="attached")

    assert visit.overflow_px <= 0
    assert visit.complaints == []


def test_a_person_logs_in_and_sees_the_dashboard(visit):
    boss = UserFactory.create(is_staff=True, is_superuser=True)

    visit.log_in(boss.username, PASSWORD)
    visit.page.wait_for_load_state("networkidle")

    assert visit.page.locator("text=First steps").is_visible()
    assert visit.overflow_px <= 0
    assert visit.complaints == []


def test_the_dashboard_draws_its_chart(visit):
    from tests.config.test_dashboard import spend

    boss = UserFactory.create(is_staff=True, is_superuser=True)
    spend(issue_key().key.customer, (3, {}))

    visit.log_in(boss.username, PASSWORD)
    visit.page.wait_for_load_state("networkidle")

    drawn = visit.page.evaluate(
        "Chart.getChart(document.querySelector('canvas.chart')).data.datasets.length"
    )
    assert drawn == 3
    assert visit.overflow_px <= 0
    assert visit.complaints == []


@pytest.mark.parametrize(
    "page", ["registry/modelversion", "auth/user", "auth/user/add"]
)
def test_the_admin_stays_within_its_policy(visit, page):
    _route()
    boss = UserFactory.create(is_staff=True, is_superuser=True)
    visit.log_in(boss.username, PASSWORD)

    visit.open(f"/admin/{page}/")

    assert visit.page.locator("#content").is_visible()
    assert visit.complaints == []


def test_the_pages_of_a_route_and_a_version_fit_and_fold_what_is_long(visit):
    digest = "f3fbf1a91d5e016a82a6f8c37dea3c82bc007711ede101411041970f4eb1ee2e"
    route = _route(artifact_digest=digest)
    boss = UserFactory.create(is_staff=True, is_superuser=True)
    visit.log_in(boss.username, PASSWORD)

    visit.open(f"/admin/registry/modelversion/{route.default_version.pk}/change/")
    assert visit.overflow_px <= 0
    visit.page.click("summary:has-text('column')")
    assert visit.page.is_visible("td >> text=width")

    visit.open(f"/admin/registry/route/{route.pk}/change/")
    assert visit.overflow_px <= 0
    assert visit.page.is_checked("input[name=fallback_on][value=OVERLOADED]")
    assert visit.page.input_value("#id_batching") == ""
    assert visit.complaints == []
