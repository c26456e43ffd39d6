"""The documents say what is true: settings, commands and links exist."""

import re
from pathlib import Path

import pytest

from inference.engine.settings import EngineSettings

ROOT = Path(__file__).resolve().parents[1]


def settings_document():
    return (ROOT / "docs" / "settings.md").read_text()


def test_every_django_setting_from_the_environment_is_documented():
    source = (ROOT / "platform" / "config" / "settings.py").read_text()
    names = re.findall(r"\benv(?:\.\w+)?\(\s*\"(\w+)\"", source)

    missing = [name for name in names if f"`{name}`" not in settings_document()]

    assert names
    assert missing == []


def test_every_setting_of_the_gateway_is_documented():
    source = (ROOT / "inference" / "gateway" / "settings.py").read_text()
    names = set(re.findall(r"\"((?:MODELYARD|LOG)_[A-Z_]+)\"", source))

    missing = [name for name in names if f"`{name}`" not in settings_document()]

    assert names
    assert missing == []


def test_every_setting_of_the_engine_is_documented():
    names = [
        f"MODELYARD_ENGINE_{field.upper()}"
        for field in EngineSettings.__struct_fields__
        if field != "home"
    ]

    missing = [name for name in names if f"`{name}`" not in settings_document()]

    assert missing == []


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_and_paths_in_documents_exist(name):
    text = (ROOT / name).read_text()
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    targets += re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|sh))`", text)

    missing = [target for target in targets if not (ROOT / target).exists()]

    assert [m for m in missing if "<" not in m] == []


def test_targets_named_in_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    named = {
        target
        for document in documents
        for target in re.findall(r"^make ([\w-]+)", document.read_text(), re.MULTILINE)
    }

    assert named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)
