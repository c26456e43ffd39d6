"""Templates of the admin name only styles that one of its stylesheets has.

Unfold's stylesheet holds those that Unfold itself uses; others would do nothing.
"""

import re
from pathlib import Path

import unfold
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
STYLESHEETS = (
    Path(unfold.__file__).parent / "static/unfold/css/styles.css",
    ROOT / "platform/config/static/modelyard/admin.css",
)
PAGES = ("accounts", "admin", "inference", "registry", "simple_history", "unfold")
PARTS = ("config/check", "config/dashboard")
# Unfold's script looks for it.
FOR_SCRIPTS = {"chart"}


def known():
    text = "".join(sheet.read_text() for sheet in STYLESHEETS)
    names = re.findall(r"\.((?:[\w-]|\\.)+)", text)
    return {re.sub(r"\\(.)", r"\1", name) for name in names}


def used():
    """Yield each file with the names in it, without those that a template computes."""
    files = [
        *(
            file
            for part in (*PAGES, *PARTS)
            for file in (ROOT / "templates" / part).rglob("*.html")
        ),
        *(file for app in PAGES for file in (ROOT / app / "admin").rglob("*.py")),
    ]
    for file in files:
        text = re.sub(r"\{[%{].*?[%}]\}", " ", file.read_text())
        for value in re.findall(r"""class=["']([^"']*)["']""", text):
            yield file, {name for name in value.split() if name != "{}"}


def test_every_style_exists():
    found = list(used())
    styles = known() | FOR_SCRIPTS

    assert len(found) > 100
    assert {
        (file.name, name) for file, names in found for name in names - styles
    } == set()
