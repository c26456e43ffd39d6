"""Test that settings, commands and links in the documents exist."""

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


DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
    )
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_anchors_in_documents_lead_somewhere(name):
    document = ROOT / name
    links = re.findall(r"\]\((?!https?:|mailto:|<)([^)\s]+)\)", document.read_text())

    missing = [link for link in links if not _leads_somewhere(document, link)]

    assert missing == []


def _leads_somewhere(document, link):
    path, _, anchor = link.partition("#")
    target = document.parent / path if path else document
    if not target.exists():
        return False
    return not anchor or anchor in _anchors(target.read_text())


def _anchors(text):
    """Return the anchors of headings as GitHub makes them, and those set by hand."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }
    return made | set(re.findall(r'id="([^"]+)"', text))


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_named_in_documents_exist(name):
    text = (ROOT / name).read_text()
    paths = re.findall(r"`((?:[\w.]+/)+(?:[\w.]+\.(?:py|md|sh))?)`", text)

    # ARCHITECTURE.md says so of paths that name no app.
    assert paths
    assert [path for path in paths if not _exists(path)] == []


def _exists(path):
    return (ROOT / path).exists() or (ROOT / "inference" / path).exists()


def test_every_guide_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    guides = [path for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]

    assert len(guides) > 10
    assert [path.name for path in guides if f"]({path.name})" not in index] == []


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
