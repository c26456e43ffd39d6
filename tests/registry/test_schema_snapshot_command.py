"""A team's own CI notices when a route breaks callers of a stored snapshot."""

import io
import json

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from registry.models import Route
from registry.rules import schema_snapshots
from tests.factories_registry import (
    ModelVersionFactory,
    RouteFactory,
    breaking_version,
)
from tests.registry.rules.test_schema_changes import CHANGES

pytestmark = pytest.mark.django_db


@pytest.fixture
def routes():
    return [
        RouteFactory(default_version__registered_model__name=name)
        for name in ("b", "a")
    ]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "contract.json"


def run(*arguments):
    out = io.StringIO()
    call_command("schema_snapshot", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_the_snapshot_is_sorted_and_the_same_each_time(routes, file):
    run(file)

    text = file.read_text()
    stored = json.loads(text)
    assert text == run()
    assert list(stored["models"]) == ["a", "b"]
    assert stored["models"]["a"]["labels"] == ["small", "large"]
    assert json.dumps(stored, indent=2, sort_keys=True) + "\n" == text


def test_the_same_routes_pass(routes, file):
    run(file)

    assert run("--check", file) == "Every route promises the same.\n"


def test_a_broken_route_fails_and_is_named(routes, file):
    run(file)
    broken = routes[0]
    Route.objects.filter(pk=broken.pk).update(default_version=breaking_version(broken))

    out = io.StringIO()
    with pytest.raises(CommandError, match="3 breaking changes") as failed:
        call_command("schema_snapshot", check=file, stdout=out)

    assert failed.value.returncode == 1
    assert "breaking: b: Column height: is gone; it was float." in out.getvalue()
    assert "additive: b: Label medium: is new" in out.getvalue()
    assert ": a:" not in out.getvalue()


def test_a_route_that_is_off_breaks_its_callers_and_a_new_one_does_not(routes, file):
    run(file)
    Route.objects.filter(pk=routes[0].pk).update(enabled=False)
    RouteFactory(default_version__registered_model__name="c")

    out = io.StringIO()
    with pytest.raises(CommandError, match="1 breaking"):
        call_command("schema_snapshot", check=file, stdout=out)

    assert "breaking: b: The model has no route that is on." in out.getvalue()
    assert "additive: c: The model is new." in out.getvalue()


def test_another_version_with_the_same_contract_changes_no_byte(routes):
    before = run()
    version = ModelVersionFactory(registered_model=routes[0].registered_model)
    Route.objects.filter(pk=routes[0].pk).update(default_version=version)

    assert run() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("", "not a schema snapshot"),
        ("[]", "not a schema snapshot"),
        ('{"format": 2, "models": {}}', "format is 2"),
        ('{"format": 1, "models": {"a": {"columns": 3}}}', "not a schema snapshot"),
    ],
)
def test_a_file_that_is_no_snapshot_is_told(content, words, file):
    if content is not None:
        file.write_text(content)

    with pytest.raises(CommandError, match=words):
        run("--check", file)


def test_a_contract_with_everything_is_read_as_it_was_written():
    contracts = {name: candidate for name, (candidate, *_) in CHANGES.items()}

    assert schema_snapshots.read(schema_snapshots.write(contracts)) == contracts
