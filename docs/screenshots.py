"""Take the pictures of docs/images from a running Modelyard, after real traffic.

.venv/bin/python docs/screenshots.py            # reads var/demo.json
.venv/bin/python docs/screenshots.py --help
"""

import argparse
import csv
import io
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).resolve().parent / "images"
MODELS = ("breast-cancer", "breast-cancer", "breast-cancer", "language", "diabetes")
CALLS_PER_MINUTE = 120
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
OPERATION = "#operations-breast-cancer-breastCancerPredict"


def main() -> None:
    options = arguments()
    facts = json.loads(options.demo.read_text())
    base_url = options.base_url or facts["base_url"]
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None
    )
    if chromium is None:
        sys.exit("No Chromium on PATH.")
    IMAGES.mkdir(exist_ok=True)
    with httpx.Client(
        base_url=base_url,
        headers={"Authorization": f"Bearer {facts['api_key']}"},
        timeout=30,
    ) as client:
        send_traffic(client, facts, minutes=options.minutes)
        svg = explanation(client, facts)
    # The gateway's spool is brought into the database every second or so.
    time.sleep(3)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        if options.portal:
            take_pictures_of_portal(browser, base_url, facts)
        else:
            take_pictures(browser, base_url, facts, svg)
        browser.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("var/demo.json"))
    parser.add_argument("--base-url", help="where it serves, if not as demo.json says")
    parser.add_argument(
        "--portal", action="store_true", help="take those of the portal only"
    )
    parser.add_argument(
        "--minutes",
        type=int,
        default=5,
        help="how long to send calls first: the chart has a bar for each minute",
    )
    return parser.parse_args()


def send_traffic(client: httpx.Client, facts: dict[str, Any], *, minutes: int) -> None:
    """Send a job, and calls at an even pace; one in a dozen is refused."""
    submit_job(client, facts["models"]["breast-cancer"]["instances"] * 200)
    # A first drawing is waited for here, as the process that draws has to start.
    explanation(client, facts)
    started = time.monotonic()
    calls = itertools.cycle(_calls(facts))
    for number in range(minutes * CALLS_PER_MINUTE):
        path, body = next(calls)
        client.post(path, json=body)
        due = started + (number + 1) * 60 / CALLS_PER_MINUTE
        time.sleep(max(0.0, due - time.monotonic()))


def _calls(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield one round of good calls, and of the mistakes that people make."""
    for number in range(33):
        name = MODELS[number % len(MODELS)]
        rows = facts["models"][name]["instances"]
        yield f"/api/v1/models/{name}/predict", {"instances": rows[: 1 + number % 2]}
    row = facts["models"]["breast-cancer"]["instances"][0]
    incomplete = dict(list(row.items())[1:])
    yield "/api/v1/models/breast-cancer/predict", {"instances": [incomplete]}
    yield "/api/v1/models/breast-cancer/predict", {"instances": []}
    yield "/api/v1/models/no-such-model/predict", {"instances": [row]}
    yield "/api/v1/models/breast-cancer/predict", {"instances": [row] * 101}


def submit_job(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    client.post(
        "/api/v1/jobs",
        data={"model": "breast-cancer"},
        files={"file": ("rows.csv", file.getvalue(), "text/csv")},
    ).raise_for_status()


def explanation(client: httpx.Client, facts: dict[str, Any]) -> httpx.Response:
    """Ask why, as a drawing."""
    rows = facts["models"]["breast-cancer"]["instances"]
    return client.post(
        "/api/v1/models/breast-cancer/explain",
        json={"instances": rows[:1]},
        headers={"Accept": "image/svg+xml"},
    ).raise_for_status()


def take_pictures(
    browser: Browser, base_url: str, facts: dict[str, Any], svg: httpx.Response
) -> None:
    with new_page(browser, base_url, DESKTOP) as page:
        sign_in(page, facts)
        take(page, "dashboard")
        page.goto("/admin/registry/modelversion/")
        take(page, "versions")
        page.goto("/admin/accounts/customer/?q=Example")
        page.click("#result_list a >> text=Example Clinic")
        take(page, "customer")
    with new_page(browser, base_url, DESKTOP) as page:
        page.goto("/docs/")
        page.click(".auth-wrapper .authorize")
        page.fill("#api_key_value", facts["api_key"])
        page.click(".modal-ux button[type=submit] >> nth=0")
        page.click(".modal-ux .btn-done")
        page.click(f"{OPERATION} button >> nth=0")
        page.locator(f"{OPERATION} .opblock-section-request-body").evaluate(
            "element => element.scrollIntoView()"
        )
        take(page, "docs")
        page.route(
            "**/explanation.svg",
            lambda route: route.fulfill(content_type="image/svg+xml", body=svg.content),
        )
        page.route(
            "**/explanation",
            lambda route: route.fulfill(
                content_type="text/html",
                body="<body style='margin:24px;text-align:center'>"
                "<img src='explanation.svg' style='max-height:750px'>",
            ),
        )
        page.goto("/explanation")
        take(page, "explanation")
    with new_page(browser, base_url, PHONE) as page:
        sign_in(page, facts)
        take(page, "dashboard-phone")
    take_pictures_of_portal(browser, base_url, facts)


def take_pictures_of_portal(
    browser: Browser, base_url: str, facts: dict[str, Any]
) -> None:
    with new_page(browser, base_url, DESKTOP) as page:
        sign_in_to_portal(page, facts)
        page.click("text=7 days")
        take(page, "portal")
        page.click("nav.tabs >> text=API keys")
        take(page, "portal-keys")
        page.click("nav.tabs >> text=Refusals")
        take(page, "portal-refusals")
        page.click("nav.tabs >> text=Try it")
        page.click("text=Use a test key")
        page.wait_for_selector("#try-code:has-text('instances')")
        page.click("#try >> text=Send")
        page.wait_for_selector("#try-status:has-text('200 answered')")
        # Pictures are public; the key works for whoever reads it.
        hide_key(page)
        page.evaluate("scrollTo(0, 0)")
        take(page, "portal-try", full_page=True)
    with new_page(browser, base_url, PHONE) as page:
        sign_in_to_portal(page, facts)
        take(page, "portal-phone")


def hide_key(page: Page) -> None:
    page.evaluate(
        """() => {
          const code = document.getElementById("try-code");
          const { value } = document.getElementById("try-key");
          code.textContent = code.textContent.replace(value, "my_test_…");
        }"""
    )


def sign_in_to_portal(page: Page, facts: dict[str, Any]) -> None:
    page.goto("/portal/sign-in/")
    page.fill("#id_username", facts["customer_user"])
    page.fill("#id_password", facts["customer_password"])
    page.click("main button")
    page.wait_for_url("**/portal/*/")


@contextmanager
def new_page(
    browser: Browser, base_url: str, viewport: dict[str, int]
) -> Iterator[Page]:
    context = browser.new_context(
        base_url=base_url,
        viewport=viewport,  # type: ignore[arg-type]  # a TypedDict of the same shape
        device_scale_factor=1,
    )
    yield context.new_page()
    context.close()


def sign_in(page: Page, facts: dict[str, Any]) -> None:
    page.goto("/admin/login/")
    page.fill("#id_username", facts["admin_user"])
    page.fill("#id_password", facts["admin_password"])
    page.click("#login-form button[type=submit]")
    page.wait_for_url("**/admin/")


def take(page: Page, name: str, *, full_page: bool = False) -> None:
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)
    page.screenshot(path=IMAGES / f"{name}.png", full_page=full_page)


if __name__ == "__main__":
    main()
