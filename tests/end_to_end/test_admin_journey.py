"""Test what people do in the admin and the docs, in a real Chromium."""

import collections
import datetime
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.browsing import ARGUMENTS, CHROMIUM, Visit
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]

OPERATION = "#operations-breast-cancer-breastCancerPredict"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def sessions():
    """Keep cookies by user: the login page limits the sign-ins of a minute."""
    return {}


@pytest.fixture
def sign_in(browser, modelyard, sessions):
    """Return a function that opens a page for a user; errors on it fail the test."""
    facts = modelyard.demo
    passwords = {facts["admin_user"]: facts["admin_password"], **facts["staff"]}
    visits = []

    def start(username):
        context = browser.new_context(
            viewport={"width": 1280, "height": 800},
            storage_state=sessions.get(username),
        )
        context.set_default_timeout(60_000)
        visit = Visit(context.new_page(), facts["base_url"])
        visits.append(visit)
        if username is not None and username not in sessions:
            visit.log_in(username, passwords[username])
            sessions[username] = context.storage_state()
        return visit

    yield start
    for visit in visits:
        visit.page.context.close()
    assert [visit.complaints for visit in visits] == [[]] * len(visits)


def set_weight(visit, percent):
    """Open the route from the list, and save its form with this weight."""
    visit.open("/admin/registry/route/")
    visit.page.click("#result_list a >> text=breast-cancer")
    visit.page.fill("#id_canary_weight_percent", str(percent))
    visit.page.click("button[name=_save]")
    visit.page.wait_for_url("**/admin/registry/route/")


@pytest.fixture
def admin(sign_in) -> Iterator[Visit]:
    """Sign in as administrator; set the challenger's weight back to 10 % afterwards."""
    visit = sign_in("admin")
    yield visit
    set_weight(visit, 10)


def split(modelyard):
    bench = modelyard.demo["bench_api_key"]
    return collections.Counter(
        modelyard.predict(token=bench).json()["model"]["version"] for _ in range(100)
    )


def canary_cells(visit):
    """Read the dashboard's row: model, default, canary, set, seen, requests, errors."""
    visit.open("/admin/")
    row = visit.page.locator("tr", has=visit.page.locator("text=breast-cancer"))
    return row.locator("td").all_inner_texts()


def test_versions_are_listed_with_their_metrics_and_roles(admin):
    admin.open("/admin/registry/registeredmodel/")
    admin.page.click("#result_list a >> text=breast-cancer")
    admin.settle()
    assert admin.page.locator("text=test_auc").count() == 3

    admin.open("/admin/registry/modelversion/?q=breast-cancer")
    rows = admin.page.locator("#result_list tr", has_text="test_accuracy")

    assert rows.count() == 3
    assert "challenger" in rows.nth(0).inner_text().lower()
    assert "default" in rows.nth(1).inner_text().lower()


def test_half_of_the_traffic_goes_to_the_challenger_and_shows(admin, modelyard):
    set_weight(admin, 50)
    wait_until(lambda: 32 <= split(modelyard)["3"] <= 68, what="a half")
    assert canary_cells(admin)[3] == "50 %"

    # Only whole minutes with the same weights count, so wait for the next.
    changed = datetime.datetime.now(datetime.UTC).minute
    wait_until(
        lambda: datetime.datetime.now(datetime.UTC).minute != changed,
        timeout_s=65,
        what="the next minute",
    )
    split(modelyard)

    def seen():
        """Read the row once it counts some of these calls, however few."""
        cells = canary_cells(admin)
        share = cells[4].removesuffix(" %")
        is_half = share[0].isdigit() and 32 <= float(share) <= 68
        return is_half and cells

    cells = wait_until(seen, what="half of the traffic on the dashboard")
    assert cells[1:4] == ["v2", "v3", "50 %"]


def test_a_customers_key_is_issued_exhausted_and_revoked(sign_in, modelyard):
    alex = sign_in("alex")
    page = alex.page
    alex.open("/admin/accounts/plan/add/")
    page.fill("#id_name", "Seven a day")
    page.fill("#id_daily_quota", "7")
    page.click("button[name=_save]")
    page.wait_for_url("**/admin/accounts/plan/")
    alex.open("/admin/accounts/customer/add/")
    page.fill("#id_name", "Small Practice")
    page.select_option("#id_plan", label="Seven a day")
    page.click("button[name=_save]")
    page.wait_for_url("**/admin/accounts/customer/*/change/")
    customer_path = urlsplit(page.url).path

    page.click("a:has-text('Issue key')")
    page.click("button[name=_save]")
    token = page.input_value("#token")
    page.click("button:has-text('Copy')")
    page.locator("span:text-is('Copied')").wait_for()
    page.click("text=I have copied it")
    page.wait_for_url(f"**{customer_path}")
    assert token not in page.content()

    wait_until(
        lambda: modelyard.predict(token=token, instances=[]).status_code == 400,
        what="the new key",
    )
    statuses = [modelyard.predict(token=token).status_code for _ in range(8)]
    assert statuses == [200] * 7 + [429]

    def refusals_are_shown():
        alex.open(customer_path)
        return page.locator("text=QUOTA_EXCEEDED").count()

    wait_until(refusals_are_shown, what="the refusal on the page")

    def use_is_shown():
        alex.open(customer_path)
        return page.locator("text=7 of 7").count()

    wait_until(use_is_shown, what="what gateways report of the quota")
    assert page.locator("text=100 % used").count()

    page.click("a:has-text('key 1')")
    page.click("text=Revoke")
    page.click("#dialog button[type=submit]")
    page.wait_for_selector("text=is revoked")
    wait_until(
        lambda: modelyard.predict(token=token).status_code == 401,
        what="the revocation",
    )


@pytest.mark.parametrize(
    ("username", "own", "foreign"),
    [
        (
            "alex",
            ["accounts/customer", "accounts/apikey"],
            ["registry/registeredmodel", "registry/modelversion", "registry/route"],
        ),
        (
            "dana",
            ["registry/modelversion", "registry/route"],
            ["accounts/customer", "accounts/plan", "accounts/apikey"],
        ),
    ],
)
def test_staff_see_only_what_is_theirs(sign_in, username, own, foreign):
    visit = sign_in(username)

    statuses = {path: visit.open(f"/admin/{path}/").status for path in [*own, *foreign]}

    assert statuses == {**dict.fromkeys(own, 200), **dict.fromkeys(foreign, 403)}
    # Chromium counts every 403 among the errors.
    told = [line for line in visit.complaints if "status of 403" in line]
    assert len(told) == len(foreign)
    visit.complaints = [line for line in visit.complaints if line not in told]


def test_a_csv_job_is_followed_in_the_list(sign_in, modelyard):
    rows = modelyard.rows("breast-cancer")
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    submitted = modelyard.client.post(
        "/api/v1/jobs",
        data={"model": "breast-cancer"},
        files={"file": ("rows.csv", "\n".join(lines), "text/csv")},
        headers=modelyard.headers(),
    )
    assert submitted.status_code == 202, submitted.text
    admin = sign_in("admin")

    def row():
        admin.open("/admin/inference/predictionjob/")
        found = admin.page.locator("#result_list tr", has_text=submitted.json()["id"])
        text = found.inner_text().lower()
        return "completed" in text and text

    assert "2 of 2" in wait_until(row, timeout_s=180, what="the end of the job")


def test_an_example_of_the_docs_works_when_executed(sign_in, modelyard):
    visit = sign_in(None)
    page = visit.page
    visit.open("/docs/", drawn=".auth-wrapper .authorize")

    page.click(".auth-wrapper .authorize")
    page.fill("#api_key_value", modelyard.demo["api_key"])
    page.click(".modal-ux button[type=submit] >> nth=0")
    page.click(".modal-ux .btn-done")
    page.click(f"{OPERATION} button >> nth=0")
    page.click(f"{OPERATION} .execute")
    answer = page.locator(f"{OPERATION} .live-responses-table .response")
    answer.wait_for()

    assert answer.locator(".response-col_status").inner_text().startswith("200")
    assert '"predictions"' in answer.inner_text()


def test_an_explanation_opens_as_a_drawing_with_its_columns(sign_in, modelyard):
    response = modelyard.client.post(
        "/api/v1/models/breast-cancer/explain",
        json={"instances": modelyard.rows("breast-cancer")[:1]},
        headers={**modelyard.headers(), "Accept": "image/svg+xml"},
    )
    visit = sign_in(None)
    # A browser can only GET a page, so it gets the POST's answer as one.
    visit.page.route(
        "**/explanation.svg",
        lambda route: route.fulfill(
            headers={"content-type": response.headers["content-type"]},
            body=response.content,
        ),
    )

    visit.open("/explanation.svg")

    drawn = visit.page.evaluate(
        """() => {
            const box = document.documentElement.getBoundingClientRect();
            const shapes = [...document.querySelectorAll("path, text, use")];
            return [document.documentElement.tagName, box.width, box.height,
                    shapes.length];
        }"""
    )
    assert drawn[0] == "svg"
    assert min(drawn[1:3]) > 100
    assert drawn[3] > 30


def test_a_version_is_tried_beside_the_default_and_explained(sign_in):
    dana = sign_in("dana")
    page = dana.page
    dana.open("/admin/registry/modelversion/?q=breast-cancer")
    page.click("#result_list a >> text=breast-cancer v3")
    page.click("a >> text=Try it")
    page.wait_for_url("**/try/")
    page.check("#try-explain")

    page.click("#try >> text=Send")

    page.wait_for_selector("#try-status:has-text('1 row answered.')")
    titles = page.locator("#try-table th").all_inner_texts()
    assert titles == ["Row", "Compared", "v3", "v2"]
    assert page.inner_text("#try-difference").startswith("1 of 1 row differs; the")
    drawn = "document.querySelector('#try-explained img').naturalWidth > 100"
    page.wait_for_function(drawn)
    # Gateways know the page's new key after a moment only.
    dana.complaints[:] = [line for line in dana.complaints if "401" not in line]
