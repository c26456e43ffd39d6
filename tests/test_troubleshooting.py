"""Test docs/troubleshooting.md: its sentences, findings, events and commands exist."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from config.checks import running
from config.checks.table import KINDS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "troubleshooting.md").read_text()
PROBLEMS = [problem for kind in (*KINDS, running) for problem in kind.PROBLEMS]
# The command of each finding names these where the code has what it found.
EXAMPLES = {
    "root": "/var/lib/modelyard",
    "owner": "modelyard",
    "folder": "/var/lib/modelyard/spool",
    "operators": "127.0.0.1:8001",
    "path": "/var/lib/modelyard",
    "host": "models.example.com",
    "needed": "20256",
    "log": "/var/lib/modelyard/logs/engine-cpu.log",
}
_FIELD = re.compile(r"\{(\w+)[^}]*\}")
# What the shell has, and Modelyard does not.
_NAMES = {"check": "check_installation"}


def plain(text):
    return " ".join(text.split())


def source():
    """Return the texts of the code, with literals joined that follow each other."""
    files = (
        path
        for app in ("accounts", "inference", "registry", "platform/config")
        for path in (ROOT / app).rglob("*.py")
    )
    joined = "\n".join(path.read_text() for path in files)
    joined = re.sub(r'"\s*\n\s*f?"', "", joined)
    return plain(_FIELD.sub("…", re.sub(r"\{[^{}\n]+\}", "…", joined)))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.code)
def test_every_finding_of_the_check_has_its_entry(problem):
    mend = _FIELD.sub(lambda it: EXAMPLES.get(it[1], "…"), problem.mend)

    assert f"**“{_FIELD.sub('…', problem.sentence)}”**" in plain(DOCUMENT)
    assert plain(mend) in plain(DOCUMENT)


def test_codes_of_findings_differ():
    codes = [problem.code for problem in PROBLEMS]

    assert len(codes) == len(set(codes))


def test_every_sentence_occurs_in_the_code():
    quoted = re.findall(r"\*\*“(.+?)”\*\*", plain(DOCUMENT))
    code = source()

    missing = [
        sentence
        for sentence in quoted
        if not all(piece.strip(" .") in code for piece in sentence.split("…"))
    ]

    assert len(quoted) > 80
    assert missing == []


def test_every_event_occurs_in_the_code():
    table = re.findall(r"^\| (`[a-z_`, ]+) \|", DOCUMENT, re.MULTILINE)
    events = re.findall(r"`(\w+)`", " ".join(table))
    code = source()

    missing = [event for event in events if f'"{event}"' not in code]

    assert len(events) > 10
    assert missing == []


def test_every_command_of_modelyard_exists():
    named = set(re.findall(r"\bmodelyard ([a-z]\w+)(?! \()", _commands()))
    known = set(get_commands())

    assert "check" in named
    assert {_NAMES.get(name, name) for name in named} <= known


def _commands():
    """Return what stands in code, where no prose is."""
    blocks = re.findall(r"```\n(.*?)```", DOCUMENT, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", DOCUMENT, flags=re.S))
    code = "\n".join((*blocks, *spans))
    return re.sub(r"(systemctl \w+|-u) modelyard", "", code)
