"""What each process imports at its start, and what only pages need."""

import json
import os
import subprocess
import sys

from django.apps import apps
from django.contrib import admin
from django.core import checks

# Of pages, and of a cache that few installations have.
_SLOW = ("accounts.admin.customers", "registry.admin.models", "redis")


def imported(tmp_path, *, process, module):
    """Return which of the slow modules that process has imported by then."""
    code = (
        f"import json, sys, {module}; "
        f"print(json.dumps([it for it in {_SLOW!r} if it in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODELYARD_HOME": str(tmp_path),
            "MODELYARD_PROCESS": process,
            "CACHE_URL": "locmem://",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_internal_process_imports_no_pages(tmp_path):
    assert imported(tmp_path, process="internal", module="config.wsgi") == []


def test_the_site_has_its_pages_before_the_first_request(tmp_path):
    found = imported(tmp_path, process="site", module="config.wsgi")

    assert found[:2] == ["accounts.admin.customers", "registry.admin.models"]


def test_checks_look_at_the_pages_of_the_admin(monkeypatch):
    asked = []
    monkeypatch.setattr(admin, "autodiscover", lambda: asked.append("pages"))

    checks.run_checks(app_configs=[apps.get_app_config("explain")], tags=["admin"])

    assert asked == ["pages"]
