from inference.gateway.metrics import processes
from inference.metrics.counts import Distribution, Number
from inference.metrics.own_reports import OwnReport
from inference.metrics.own_use import OwnUse
from inference.metrics.table import SECONDS
from tests.inference.gateway.metrics.test_calls import only, parsed, text

USE = OwnUse(cpu_s=1.5, resident_bytes=10, open_files=3, open_files_limit=9)


def report(process, *, at=100.0, numbers=(), distributions=()):
    return OwnReport(
        process, at, "1.2", "3.11.7", USE, list(numbers), list(distributions)
    )


def shown(*reports, expected=(), now=101.0):
    return parsed(text(processes.of_processes(reports, expected=expected, now=now)))


def test_a_process_shows_what_it_runs_and_uses():
    found = shown(report("worker"))

    assert only(found, "modelyard_process_up", process="worker") == [1]
    assert only(found, "modelyard_process_cpu_seconds_total", process="worker") == [1.5]
    assert only(found, "modelyard_process_resident_bytes", process="worker") == [10]
    assert only(found, "modelyard_process_open_files", process="worker") == [3]
    assert only(found, "modelyard_build_info", version="1.2", python="3.11.7") == [1]


def test_of_a_process_that_is_away_only_counters_stay():
    numbers = [
        Number("mails", ("sent",), 2.0),
        Number("task_succeeded_at_seconds", ("a",), 90.0),
    ]
    old = report("worker", at=10.0, numbers=numbers)

    found = shown(old, expected=("worker", "beat"))

    assert only(found, "modelyard_process_up", process="worker") == [0]
    assert only(found, "modelyard_process_up", process="beat") == [0]
    assert only(found, "modelyard_mails_total", outcome="sent") == [2]
    assert only(found, "modelyard_task_succeeded_at_seconds") == []
    assert only(found, "modelyard_process_resident_bytes") == []
    assert only(found, "modelyard_build_info") == []


def test_a_second_process_is_forgotten_once_it_is_gone():
    now = shown(report("beat"), report("beat-2"), expected=("beat",))
    later = shown(report("beat"), report("beat-2", at=50.0), expected=("beat",))

    assert only(now, "modelyard_process_up") == [1, 1]
    assert only(later, "modelyard_process_up") == [1]


def test_what_another_version_counts_otherwise_is_left_out():
    found = shown(
        report(
            "site",
            numbers=[
                Number("mails", ("sent", "more"), 1.0),
                Number("of_the_future", (), 1.0),
            ],
            distributions=[
                Distribution("task_duration_seconds", ("old",), [1, 2], 1.0),
                Distribution(
                    "task_duration_seconds", ("new",), [1] * (len(SECONDS) + 1), 5.0
                ),
            ],
        )
    )

    assert only(found, "modelyard_mails_total") == []
    assert only(found, "modelyard_task_duration_seconds_sum") == [5]
