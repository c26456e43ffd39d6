import sys
from pathlib import Path

import pytest

from inference.environments import pythons


@pytest.fixture(autouse=True)
def forget():
    """Each test finds Pythons anew, and leaves nothing behind."""
    caches = (pythons.find, pythons.installed, pythons.obstacle)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def put(tmp_path, monkeypatch, name: str, script: str) -> Path:
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_this_python_is_always_there():
    assert pythons.find(pythons.OWN) == Path(sys.executable)
    assert pythons.obstacle(pythons.OWN) == ""


def test_another_python_is_found_on_the_path(tmp_path, monkeypatch):
    program = put(tmp_path, monkeypatch, "python3.19", "echo 3.19")

    assert pythons.find("3.19") == program
    assert "3.19" in pythons.installed()


@pytest.mark.parametrize("script", ["exit 127", "echo 3.11"])
def test_a_name_that_runs_no_such_python_does_not_count(tmp_path, monkeypatch, script):
    put(tmp_path, monkeypatch, "python3.19", script)

    assert pythons.find("3.19") is None
    assert pythons.obstacle("3.19") == "python3.19 is not installed on this machine"


def test_older_pythons_than_engines_need_are_not_used(tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, "python3.9", "echo 3.9")

    assert pythons.obstacle("3.9") == "engine processes need Python 3.11 or later"
