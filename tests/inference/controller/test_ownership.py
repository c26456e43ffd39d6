"""One database serves one home, which errors name."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from config.processes import before_start
from config.processes.before_start import CannotStart
from inference.controller import controller, leadership, ownership
from inference.controller.ownership import OtherHome
from inference.installation.home import Home
from inference.models import ControllerLease, DatabaseHome
from inference.snapshot import snapshot_file
from inference.snapshot.tables import Tables
from inference.snapshot.watcher import SnapshotWatcher
from registry.models import ModelVersion
from tests.factories import issue_key
from tests.factories_registry import ModelVersionFactory
from tests.fakes import ManualClock

pytestmark = pytest.mark.django_db


def make(path):
    home = Home(path)
    home.prepare()
    return home


@pytest.fixture
def first(tmp_path):
    home = make(tmp_path / "first")
    ownership.claim(home, now=timezone.now())
    return home


@pytest.fixture
def second(tmp_path):
    return make(tmp_path / "second")


def test_a_home_may_come_back_as_often_as_it_likes(first):
    ownership.claim(first, now=timezone.now())
    ownership.claim(Home(first.root), now=timezone.now())


def test_a_second_home_is_refused_and_told_of_the_first(first, second, settings):
    settings.HOME = second

    with pytest.raises(CannotStart) as refused:
        before_start.check_database()

    host = DatabaseHome.objects.get().host
    assert f"{first.root} on {host}" in str(refused.value)
    assert "modelyard take_over" in str(refused.value)


def test_the_controller_of_a_second_home_never_leads(first, second):
    other = controller.Controller(second)

    other.step()

    assert not ControllerLease.objects.exists()


def test_a_home_that_was_moved_is_still_the_same(first, tmp_path):
    moved = Home(first.root.rename(tmp_path / "moved"))

    ownership.claim(moved, now=timezone.now())

    assert DatabaseHome.objects.get().path == str(moved.root)


def test_a_copy_is_refused_while_the_original_runs(first, tmp_path):
    now = timezone.now()
    copied = Home(Path(shutil.copytree(first.root, tmp_path / "copy")))
    leadership.lead("the first's", now=now)

    with pytest.raises(OtherHome, match=f"copy of {first.root}"):
        ownership.claim(copied, now=now)
    ownership.claim(
        copied, now=now + timedelta(seconds=leadership.LEADERSHIP_TTL_S + 1)
    )


def test_a_dead_home_can_be_taken_over_and_a_living_one_cannot(
    first, second, settings, capsys
):
    settings.HOME = second
    leadership.lead("the first's", now=timezone.now())
    with pytest.raises(CommandError, match="is running"):
        call_command("take_over")
    leadership.resign("the first's", now=timezone.now())

    call_command("take_over")

    assert f"before, to {first.root}" in capsys.readouterr().out
    ownership.claim(second, now=timezone.now())
    with pytest.raises(OtherHome):
        ownership.claim(first, now=timezone.now())


@pytest.fixture
def follower(first):
    """Return a gateway and the first home's controller, which has published a key."""
    digest = bytes.fromhex(issue_key().key.digest)
    clock = ManualClock()
    leader = controller.Controller(first, clock=clock)
    leader.step()
    tables = Tables()
    watcher = SnapshotWatcher(first.snapshot, tables)
    watcher.look()
    tables.remember_token(b"token", tables.find_key(digest))
    leadership.resign(leader.holder, now=timezone.now())
    return leader, clock, watcher, tables


def renew_lease(leader, clock):
    clock.advance(4.0)
    leader.step()


def test_gateways_of_a_home_that_was_taken_over_answer_no_more(follower, second):
    leader, clock, watcher, tables = follower
    ownership.take_over(second, now=timezone.now())

    renew_lease(leader, clock)

    assert watcher.look()
    assert tables.known_token(b"token") is None
    # Callers see the same as from a gateway that has just started.
    assert tables.sequence == 0


def test_a_home_that_gets_the_database_back_answers_again(follower, first, second):
    leader, clock, watcher, tables = follower
    ownership.take_over(second, now=timezone.now())
    renew_lease(leader, clock)
    ownership.take_over(first, now=timezone.now())

    renew_lease(leader, clock)

    watcher.look()
    assert len(tables.as_snapshot().keys) == 1


def test_a_host_that_is_renamed_goes_on_answering(follower, first):
    leader, clock, watcher, _ = follower
    leadership.lead(leader.holder, now=timezone.now())
    DatabaseHome.objects.update(host="former-name")

    renew_lease(leader, clock)

    assert not watcher.look()
    assert len(snapshot_file.read(first.snapshot).keys) == 1


def test_an_identity_is_made_once(tmp_path):
    home = make(tmp_path)

    assert home.identity() == home.identity() == Home(tmp_path).identity()
    assert not list(tmp_path.glob("*.partial"))


def test_an_empty_home_that_takes_over_waits_for_artifacts(first, second):
    """Only the former home had the artifacts in its folders."""
    ModelVersionFactory.create()

    ownership.take_over(first, now=timezone.now())
    assert ModelVersion.objects.get().artifact_state == "ready"
    ownership.take_over(second, now=timezone.now())

    version = ModelVersion.objects.get()
    assert (version.artifact_state, version.artifact_digest) == ("remote", "")
