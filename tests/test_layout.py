"""Test that folders and imports follow ARCHITECTURE.md."""

import ast
import platform
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_platform_folder_hides_nothing():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not list((ROOT / "platform").glob("*.py"))
    assert not list((ROOT / "platform").rglob("test_*.py"))
    assert [p.name for p in (ROOT / "platform").iterdir() if p.name[0] != "_"] == [
        "config"
    ]
    assert ROOT not in Path(platform.__file__).parents


APPS = ("accounts", "explain", "inference", "registry", "platform/config")
# These are Django's own folders, or hold generated code.
UNTOLD = {"management", "commands", "migrations", "templatetags", "formats", "en"}
# Django imports these two packages by name, so they import their modules' classes.
WITH_CODE = {"admin", "models"}
MOST_MODULES = 15
ROOTS = {
    "accounts": {"apps", "checks", "signals", "tasks"},
    "explain": {
        *("apps", "drawing", "features", "plots", "plugin", "question", "targets"),
    },
    "inference": {"apps", "checks", "tasks"},
    "registry": {
        *("apps", "artifacts", "changes", "models", "routes", "routing", "signals"),
        *("schema_gate", "sync", "sync_run", "tasks"),
    },
    "platform/config": {
        *("__main__", "admin", "apps", "celery", "command_line", "groups", "mail"),
        *("settings", "unfold", "urls", "urls_internal", "wsgi"),
    },
}


def folders():
    """Return every folder of code below an app, and the apps themselves."""
    return [
        init.parent
        for app in APPS
        for init in sorted((ROOT / app).rglob("__init__.py"))
        if not UNTOLD & set(init.relative_to(ROOT).parts)
    ]


def modules(folder):
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def is_app(folder):
    return str(folder.relative_to(ROOT)) in APPS


def test_every_folder_says_in_one_sentence_what_it_holds():
    without = []
    for folder in folders():
        init = ast.parse((folder / "__init__.py").read_text())
        sentence = ast.get_docstring(init) or ""
        is_one = sentence.endswith(".") and "\n" not in sentence
        is_bare = len(init.body) == 1 or folder.name in WITH_CODE
        if not (is_one and (is_bare or is_app(folder))):
            without.append(folder.relative_to(ROOT))

    assert without == []


def test_no_folder_holds_more_modules_than_one_can_look_over():
    too_many = {
        str(folder.relative_to(ROOT)): len(modules(folder))
        for folder in folders()
        if len(modules(folder)) > MOST_MODULES
    }

    assert too_many == {}


@pytest.mark.parametrize("app", APPS)
def test_what_is_new_goes_into_a_folder(app):
    assert modules(ROOT / app) == ROOTS[app]


@pytest.mark.parametrize("app", APPS)
def test_no_two_classes_of_an_app_share_a_name(app):
    places = defaultdict(list)
    for folder in folders():
        if not folder.is_relative_to(ROOT / app):
            continue
        for path in sorted(folder.glob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(path.relative_to(ROOT)))

    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def drawn_folders():
    """Read the folders of ARCHITECTURE.md's tree, in order."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    house = re.search(r"<!-- house -->\n```\n(.*?)```", text, re.DOTALL)[1]
    found, above = set(), []
    for line in house.splitlines():
        entry = re.match(r"( *)((?:[\w.]+/ ?)+)", line)
        if entry is None:
            continue
        depth = len(entry[1]) // 2
        above = above[:depth]
        for name in entry[2].split():
            found.add("/".join([*above, name.rstrip("/")]))
        above.append(entry[2].split()[-1].rstrip("/"))
    return found


def test_architecture_shows_every_folder_and_no_other():
    assert drawn_folders() == {str(it.relative_to(ROOT)) for it in folders()}


def test_modules_without_an_owner_do_not_exist():
    forbidden = {"services", "selectors", "utils", "helpers", "common", "core"}

    found = [
        path
        for app in ("registry", "accounts", "inference", "explain", "platform")
        for path in (ROOT / app).rglob("*.py")
        if forbidden & {path.stem, *path.relative_to(ROOT).parts}
    ]

    assert found == []


def test_gateway_imports_neither_django_nor_the_heavy_libraries():
    heavy = ("django", "torch", "mlflow", "shap", "pandas", "celery", "grpc")
    code = (
        "import sys, inference.gateway.__main__\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )

    assert result.stdout.strip() == "[]", result.stderr


def test_engine_imports_no_app_and_no_django():
    names = ("django", "registry", "accounts", "explain", "config", "mlflow", "shap")
    code = (
        "import sys, inference.engine.__main__\n"
        f"print([name for name in {names!r} if name in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )

    assert result.stdout.strip() == "[]", result.stderr
