"""Drive a real Chromium, and collect every error that happens in it."""

import shutil
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client

# The first draws the same pages without windows around them, for less of the processor.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
_QUIET_S = 0.2
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-gpu-compositing",
    "--disable-gpu-rasterization",
    "--disable-software-rasterizer",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def launched():
    """Start Chromium; tests may still query the database while it runs."""
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright's synchronous API keeps an event loop running in this thread;
        # Django would refuse every query, though no other code runs then.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """A page of a browser, with its errors, blocked parts and requests elsewhere."""

    def __init__(self, page, base_url, views=()):
        self.page = page
        self.base_url = base_url
        self.views = views
        self.complaints = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._on_request)
        self._loading = set()
        self._changed = time.monotonic()
        page.on("request", lambda request: self._change(self._loading.add, request))
        for event in ("requestfinished", "requestfailed"):
            page.on(event, lambda request: self._change(self._loading.discard, request))

    def _change(self, change, request):
        change(request)
        self._changed = time.monotonic()

    def _on_console(self, message):
        if message.type == "error":
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def _on_request(self, request):
        url = urlsplit(request.url)
        ours = urlsplit(self.base_url)
        if url.scheme not in ("data", "blob") and url.netloc != ours.netloc:
            self.complaints.append(f"request to {request.url}")

    def open(self, path, drawn=None):
        """Open a page, and wait until `drawn` is in it, or until nothing is loaded."""
        response = self.page.goto(self.base_url + path)
        if drawn is None:
            self.settle()
        else:
            self.page.wait_for_selector(drawn, state="attached")
        return response

    def settle(self):
        """Wait until the page has loaded nothing for a while, and its scripts rest.

        Playwright's own "networkidle" may never come on a busy machine: it did not for
        2 of 30 visits to /docs/, though all they asked for had been answered.
        """
        asked = time.monotonic()
        while not self._is_quiet_since(asked) or not self._rests():
            waits = [request.url for request in self._loading]
            assert time.monotonic() - asked < 60, f"still loading {waits}"
            self.page.wait_for_timeout(50)

    def _is_quiet_since(self, asked):
        quiet_s = time.monotonic() - max(asked, self._changed)
        return not self._loading and quiet_s >= _QUIET_S

    def _rests(self):
        """Let the page answer, which a busy machine may delay; did it load anything?"""
        before = self._changed
        self.page.wait_for_selector(":root", state="attached")
        return self._changed == before

    def look(self, width, scheme="light"):
        """Show the open page at another width, or in another color scheme."""
        height = self.page.viewport_size["height"]
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme)

    def come_in(self, user):
        """Sign in without the form, which takes as long as two pages."""
        client = Client()
        client.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        cookie = {"name": name, "value": client.cookies[name].value}
        self.page.context.add_cookies([{**cookie, "url": self.base_url}])

    def log_in(self, username, password):
        # All tests have one address, so they share a few attempts per minute.
        cache.clear()
        self.open("/admin/login/")
        self.page.fill("#id_username", username)
        self.page.fill("#id_password", password)
        self.page.click("#login-form button[type=submit]")
        self.page.wait_for_url(f"{self.base_url}/admin/")

    @property
    def overflow_px(self):
        return self.page.evaluate(
            "document.documentElement.scrollWidth - window.innerWidth"
        )

    def sign_in(self, username, password):
        """Sign in to the customer portal."""
        cache.clear()
        self.open("/portal/sign-in/")
        self.page.fill("#id_username", username)
        self.page.fill("#id_password", password)
        self.page.click("main button")
        self.page.wait_for_url(f"{self.base_url}/portal/**")
        self.settle()
