import subprocess
import sys
import time

from inference.installation.ledger_report import Gauge
from inference.metrics import own_reports
from inference.metrics.counts import Counts
from inference.metrics.own_reports import Facts, ReportFile
from inference.metrics.own_use import own_use


def test_a_report_holds_what_its_process_counted_and_uses(tmp_path):
    counts = Counts()
    counts.add("mails", "sent", by=2)
    counts.add("mails", "sent")
    counts.set("task_succeeded_at_seconds", "a", value=7.0)
    for seconds in (0.0004, 0.0006, 100.0):
        counts.observe("task_duration_seconds", "a", value=seconds)

    ReportFile(tmp_path / "reports", "worker").write(counts)

    [found] = own_reports.read(tmp_path / "reports")
    assert found.process == "worker"
    assert found.is_fresh(time.time())
    assert not found.is_fresh(time.time() + 21)
    numbers = {(it.name, it.labels): it.value for it in found.numbers}
    assert numbers[("mails", ("sent",))] == 3
    assert numbers[("task_succeeded_at_seconds", ("a",))] == 7
    [spread] = found.distributions
    assert spread.buckets[:2] == [1, 1]
    assert spread.buckets[-1] == 1
    assert 100 < spread.total < 101
    assert found.use.resident_bytes > 1_000_000
    assert 0 < found.use.open_files < found.use.open_files_limit
    assert found.use.cpu_s > 0
    assert found.version


def test_processes_of_one_name_beside_each_other_have_a_file_each(tmp_path):
    first, second = (ReportFile(tmp_path, "site") for _ in range(2))

    for file in (first, second):
        file.write(Counts())

    assert [it.process for it in own_reports.read(tmp_path)] == ["site", "site-2"]


def test_a_process_that_outlives_another_moves_up_to_its_name(tmp_path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from inference.metrics.own_reports import ReportFile;"
        "ReportFile(Path(sys.argv[1]), 'site').write(); print(flush=True);"
        "time.sleep(300)"
    )
    former = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    )
    with former:
        former.stdout.readline()
        successor = ReportFile(tmp_path, "site")
        successor.write(Counts())
        beside = [it.process for it in own_reports.read(tmp_path)]
        former.kill()
    successor.write(Counts())

    assert beside == ["site", "site-2"]
    [alone] = own_reports.read(tmp_path)
    assert (alone.process, alone.use.started_at) == ("site", own_use().started_at)


def test_a_file_that_is_torn_or_foreign_hides_no_other(tmp_path):
    ReportFile(tmp_path, "worker").write(Counts())
    (tmp_path / "a.json").write_bytes(b'{"process": ')
    (tmp_path / "b.json").write_bytes(b"[]")

    assert [it.process for it in own_reports.read(tmp_path)] == ["worker"]


def test_old_facts_say_only_how_old_they_are(tmp_path):
    path = tmp_path / "facts.json"
    own_reports.write_facts(path, Facts(100.0, [Gauge("waiting_messages", 3.0)]))

    facts = own_reports.read_facts(path)

    assert [it.name for it in facts.shown(160.0)] == [
        "facts_age_seconds",
        "waiting_messages",
    ]
    assert [(it.name, it.value) for it in facts.shown(161.0)] == [
        ("facts_age_seconds", 61.0)
    ]
    assert own_reports.read_facts(tmp_path / "none") is None
