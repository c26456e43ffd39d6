"""The folder names are the architecture; these tests keep them so."""

import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_platform_folder_hides_nothing():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not list((ROOT / "platform").glob("*.py"))
    assert not list((ROOT / "platform").rglob("test_*.py"))
    assert [p.name for p in (ROOT / "platform").iterdir() if p.name[0] != "_"] == [
        "config"
    ]
    assert ROOT not in Path(platform.__file__).parents


def test_app_packages_are_empty():
    for app in ("registry", "accounts", "inference", "explain"):
        assert (ROOT / app / "__init__.py").read_text() == "", app


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
