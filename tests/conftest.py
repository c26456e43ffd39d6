"""Define the fixtures of every test."""

import os
import time

import pytest
from django.conf import settings as django_settings
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from inference.engine.loading import memory
from inference.installation.home import Home
from tests import browsing, torture

torture.load_profile()

_DAY_S = 86_400


def pytest_make_parametrize_id(val, argname):
    """Keep keys out of the ids of tests.

    Each process of a parallel run issues its own; they would collect different tests,
    and pytest-xdist then runs none.
    """
    if isinstance(val, str) and ("my_live_" in val or "my_test_" in val):
        return argname
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests that store data; only these depend on the kind of database."""
    for item in items:
        asks = {"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))
        if asks or item.get_closest_marker("django_db"):
            item.add_marker(pytest.mark.stores)


def pytest_sessionstart():
    # Some modules have a test for each page, and look for the pages when collected.
    admin.autodiscover()


def pytest_collection_finish():
    """Exclude objects that all tests share from garbage collection: there are many.

    An engine that unloads a version collects garbage, and nothing else runs meanwhile.
    """
    memory.settle()


def pytest_runtest_setup(item):
    """Begin no test so late in a UTC day that it would end in the next.

    Usage, quotas and invoices belong to a day or a month: each test would have to
    expect a new one at every step.
    """
    real = {mark.name for mark in item.iter_markers()} & {"processes", "browser"}
    left_s = _DAY_S - time.time() % _DAY_S
    if left_s < (60 if real else 15):
        time.sleep(left_s)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix):
    """Let threads wait for each other's writes for as long as a busy machine takes."""
    if connection.vendor == "sqlite":
        connection.settings_dict["OPTIONS"]["timeout"] = 60


@pytest.fixture(autouse=True)
def umask():
    """Let no test that prepares the home of a group change the modes of later tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    """Hash passwords quickly; the real hashers take half a second by design."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True, scope="session")
def static_files_on_demand():
    """Look for a static file when it is requested, not for all files in each client.

    Every test client starts the site's middleware, which would list a thousand files.
    That took longer than most tests.
    """
    django_settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(autouse=True, scope="session")
def empty_cache():
    """Delete what an earlier run left on a server."""
    cache.clear()


@pytest.fixture
def home(tmp_path, settings):
    """Give the test an installation's files of its own."""
    settings.HOME = Home(tmp_path / "home")
    settings.HOME.prepare()
    return settings.HOME


@pytest.fixture
def publish(home):
    """Return a function that publishes the database to gateways and the docs."""
    # It imports models, which is allowed only after Django is set up.
    from inference.api import driver
    from inference.controller import publishing

    def publish_now():
        publishing.mark_changed()
        publishing.publish(now=timezone.now())

    yield publish_now
    driver.current().close()


@pytest.fixture(scope="module")
def browser():
    """Start one Chromium for the tests of a module; each test opens its own windows."""
    with browsing.launched() as chromium:
        yield chromium
