"""A backup is made whole or not at all, and restored only where nothing is."""

import contextlib
import io
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from accounts.models import Customer, SpoolSegment
from config.backups import archive, databases, home_files, restoring, taking
from config.backups.archive import Refused
from inference.models import PredictionJob
from tests.config.backups import test_archive
from tests.factories import CustomerFactory
from tests.factories_jobs import make_job

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def with_home(home, monkeypatch):
    monkeypatch.setattr(os, "nice", lambda _: 0)


def names(path):
    with archive.opened(path, None) as file:
        return [name for name, _, _ in archive.contents(file)]


def test_only_uncounted_segments_and_inputs_that_jobs_need_are_copied(home, tmp_path):
    for name in ("a-1.spool", "b-1.spool", "c-1.spool"):
        (home.spool / name).write_bytes(b"events")
    SpoolSegment.objects.create(name="a-1.spool", ingested_bytes=2)
    SpoolSegment.objects.create(name="b-1.spool", completed_at="2026-11-30T00:00Z")
    waiting = make_job()
    make_job(status="completed")
    home.secret_key.write_text("secret")

    head = taking.take(tmp_path / "backup", recipients=[])

    copied = [name for name in names(tmp_path / "backup") if name.startswith("home/")]
    assert copied == [
        "home/spool/a-1.spool",
        "home/spool/c-1.spool",
        f"home/jobs/{waiting.input_file}",
    ]
    assert head.missing == []


age_key = test_archive.key


@test_archive.needs_age
def test_an_encrypted_backup_has_the_key_that_is_in_use(
    home, tmp_path, settings, age_key
):
    identity, public = age_key
    settings.SECRET_KEY = "from the environment"
    home.secret_key.write_text("of the home, which is not in use")

    taking.take(tmp_path / "backup", recipients=[public])

    found = test_archive.read(tmp_path / "backup", identity)
    assert found["home/secret_key"] == b"from the environment"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's own files")
def test_what_a_crash_left_beside_the_database_is_not_restored(tmp_path, monkeypatch):
    made, crashed = tmp_path / "made", tmp_path / "crashed"
    path = tmp_path / "db.sqlite3"
    with contextlib.closing(sqlite3.connect(made)) as old:
        old.execute("CREATE TABLE t (n)")
        old.commit()
        backup = made.read_bytes()
        old.execute("PRAGMA journal_mode = wal")
        old.execute("INSERT INTO t VALUES (1)")
        old.commit()
        # As it lies there when the process is killed.
        crashed.write_bytes(made.with_name("made-wal").read_bytes())
    crashed.rename(tmp_path / "db.sqlite3-wal")
    monkeypatch.setitem(connection.settings_dict, "NAME", str(path))

    with databases.of_this_installation().filling(None) as fill:
        fill("sqlite", io.BytesIO(backup))

    with contextlib.closing(sqlite3.connect(path)) as restored:
        assert restored.execute("SELECT * FROM t").fetchall() == []


def test_a_file_that_is_lost_is_named_and_the_rest_is_copied(home, tmp_path):
    job = make_job()
    (home.jobs / job.input_file).unlink()

    head = taking.take(tmp_path / "backup", recipients=[])

    assert head.missing == [f"jobs/{job.input_file}"]
    assert archive.verified(tmp_path / "backup", None) == head


def test_a_job_that_ends_meanwhile_lets_the_backup_begin_again(
    home, tmp_path, monkeypatch
):
    job = make_job()
    held = home_files.held

    def end_it_first(home):
        if path := next((home.jobs / job.pk).iterdir(), None):
            path.unlink()
            restart.append(1)
        return held(home)

    restart = []
    monkeypatch.setattr(home_files, "held", end_it_first)
    # The database of the next moment knows that it ended.
    moment = databases.of_this_installation().moment

    def later_moment(self):
        if restart:
            PredictionJob.objects.update(
                status="completed", completed_at="2026-11-30T00:00Z"
            )
        return moment()

    monkeypatch.setattr(type(databases.of_this_installation()), "moment", later_moment)

    assert taking.take(tmp_path / "backup", recipients=[]).missing == []


def test_a_file_that_exists_is_not_replaced(tmp_path):
    (tmp_path / "backup").write_text("yesterday's")

    with pytest.raises(CommandError, match="backup exists already"):
        call_command("backup", str(tmp_path / "backup"))

    assert (tmp_path / "backup").read_text() == "yesterday's"


def test_a_full_disk_leaves_nothing_behind(home, tmp_path):
    """A limit on the size of files stands in for a disk that is full."""
    (home.spool / "a-1.spool").write_bytes(os.urandom(3_000_000))
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000));"
        "from config import settings; import django; django.setup();"
        "from django.core.management import call_command;"
        f"call_command('backup', {str(tmp_path / 'backup')!r})"
    )
    from tests.end_to_end.test_backup import environment_of

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment_of(home.root),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert "failed: File too large. Nothing is left of it" in done.stderr
    assert [path.name for path in tmp_path.glob("backup*")] == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CommandError, match="nowhere failed: No such file"):
        call_command("backup", str(tmp_path / "nowhere" / "backup"))


@pytest.mark.parametrize("folder", ["spool", "jobs", "uploads", "mlflow", "artifacts"])
def test_a_used_home_is_refused(home, folder):
    home_files.check_unused(home)
    (home.root / folder / "something").touch()

    with pytest.raises(Refused, match=f"used already: it holds something in {folder}"):
        home_files.check_unused(home)


def test_a_used_database_is_refused(home, tmp_path):
    CustomerFactory()
    taking.take(tmp_path / "backup", recipients=[])

    with pytest.raises(CommandError, match="already"):
        call_command("restore", str(tmp_path / "backup"))

    assert Customer.objects.count() == 1
    assert list(home.spool.iterdir()) == []


def test_a_restore_looks_at_the_home_first(home, tmp_path):
    taking.take(tmp_path / "backup", recipients=[])
    home.snapshot.touch()

    with pytest.raises(Refused, match="used already: it has a snapshot"):
        restoring.restore(tmp_path / "backup", identity=None)


def test_a_home_that_is_served_is_refused(home, tmp_path):
    from config.processes.before_start import hold_home

    taking.take(tmp_path / "backup", recipients=[])
    held = hold_home(home)

    with pytest.raises(CommandError, match="already running"):
        call_command("restore", str(tmp_path / "backup"))

    os.close(held)


def test_a_backup_of_a_newer_version_is_refused(tmp_path):
    MigrationRecorder.Migration.objects.create(app="accounts", name="9999_newer")
    try:
        taking.take(tmp_path / "backup", recipients=[])
    finally:
        MigrationRecorder.Migration.objects.filter(name="9999_newer").delete()

    with pytest.raises(CommandError, match=r"newer version .*accounts\.9999_newer"):
        call_command("restore", str(tmp_path / "backup"))


def test_a_backup_of_another_kind_of_database_is_refused(tmp_path, monkeypatch):
    taking.take(tmp_path / "backup", recipients=[])
    other = "sqlite" if connection.vendor == "postgresql" else "postgresql"
    head = archive.verified(tmp_path / "backup", None)
    foreign = msgspec.structs.replace(head, database=other)
    monkeypatch.setattr(archive, "verified", lambda *_: foreign)

    with pytest.raises(CommandError, match=f"backup is of {other}, and DATABASE_URL"):
        call_command("restore", str(tmp_path / "backup"))


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "/etc/passwd", "jobs/../../x", "run/site.sock", "db"]
)
def test_a_file_that_has_no_place_is_refused(home, name):
    with pytest.raises(Refused, match="no place"):
        home_files.place(home, name)


def test_settings_are_copied_without_secrets():
    text = taking.settings_without_secrets(
        {
            "MODELYARD_PORT": "9000",
            "MODELYARD_HOME": "/var/lib/modelyard",
            "MLFLOW_TRACKING_PASSWORD": "secret",
            "UPLOAD_STORAGE_OPTIONS": '{"secret_key": "secret"}',
            "DATABASE_URL": "postgres://modelyard:secret@db/modelyard",
            "PATH": "/bin",
        }
    )

    assert text == "MODELYARD_PORT=9000\n"


def test_artifacts_of_a_local_mlflow_are_found_in_the_new_home(tmp_path):
    import sqlite3

    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (id INTEGER, artifact_uri VARCHAR(200))")
        database.execute("INSERT INTO runs VALUES (1, '/old/home/mlflow/1')")
        database.execute("INSERT INTO runs VALUES (2, 's3://bucket/old')")
    database.close()

    home_files.move_mlflow(path, before="/old/home", now="/new")

    with sqlite3.connect(path) as database:
        found = database.execute("SELECT artifact_uri FROM runs").fetchall()
    database.close()
    assert found == [("/new/mlflow/1",), ("s3://bucket/old",)]
