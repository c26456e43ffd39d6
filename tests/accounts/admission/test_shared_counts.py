import multiprocessing
import signal
import subprocess
import sys

import pytest

from accounts.admission.admission import Admission
from accounts.admission.limits import Limits, Rate
from accounts.admission.shared_counts import SharedCounts, key_of
from tests.accounts.admission.test_admission import NOON, limits

HOUR = 3600


@pytest.fixture
def path(tmp_path):
    return tmp_path / "counts"


def admissions(path, plan: Limits, count=3):
    """The same customer in several processes."""
    return [
        Admission(1, plan, shared=SharedCounts(path, process=n, processes=count))
        for n in range(count)
    ]


def test_a_rate_is_counted_for_all_processes_together(path):
    processes = admissions(path, limits(Rate("burst", 20, 1)))

    outcomes = [processes[n % 3].enter(NOON) for n in range(90)]

    assert outcomes.count(None) == 20
    assert outcomes[:20] == [None] * 20


def test_one_process_may_use_all_of_a_rate(path):
    quiet, busy, _ = admissions(path, limits(Rate("burst", 20, 1)))
    quiet.enter(NOON)

    assert [busy.enter(NOON) for _ in range(30)].count(None) == 19
    assert quiet.enter(NOON) is not None
    assert quiet.enter(NOON + 1) is None


def test_nothing_is_counted_unless_every_rate_has_room(path):
    first, second, _ = admissions(path, limits(Rate("a", 1, 1), Rate("b", 5, 60)))
    for second_of_minute in range(3):
        assert first.enter(NOON + second_of_minute) is None
        for _ in range(10):
            refusal = second.enter(NOON + second_of_minute + 0.5)
            assert refusal is not None
            assert refusal.limit_name == "a"

    assert second.enter(NOON + 3) is None
    assert first.enter(NOON + 4) is None
    assert second.enter(NOON + 5) is not None


def test_headers_count_the_calls_of_all(path):
    first, second, _ = admissions(path, limits(Rate("burst", 20, 1)))
    for _ in range(7):
        first.enter(NOON)
    second.enter(NOON)

    assert dict(second.headers(NOON))[b"X-RateLimit-Remaining"] == b"12"


def test_calls_in_flight_are_counted_for_all_processes_together(path):
    first, second, third = admissions(path, limits(max_concurrency=2))
    assert first.enter(NOON) is None
    assert second.enter(NOON) is None

    refusal = third.enter(NOON)

    assert refusal is not None
    assert refusal.kind == "concurrency"
    first.leave()
    assert third.enter(NOON) is None
    assert first.enter(NOON) is not None


def test_what_a_dead_process_had_in_flight_ends_when_it_starts_again(path):
    plan = limits(max_concurrency=2)
    first, second, _ = admissions(path, plan)
    assert [first.enter(NOON) for _ in range(2)] == [None, None]
    assert second.enter(NOON) is not None

    Admission(1, plan, shared=SharedCounts(path, process=0, processes=3))

    assert second.enter(NOON) is None


def test_counts_outlive_every_process(path):
    plan = limits(Rate("hour", 10, HOUR))
    [only] = admissions(path, plan, count=1)
    for _ in range(8):
        only.enter(NOON)

    [successor] = admissions(path, plan, count=1)

    assert [successor.enter(NOON + 1) for _ in range(5)].count(None) == 2


def test_a_call_that_is_withdrawn_was_never_counted(path):
    first, second, _ = admissions(path, limits(Rate("burst", 1, 1), max_concurrency=1))
    assert first.enter(NOON) is None

    first.withdraw(NOON)

    assert second.enter(NOON) is None


def test_a_clock_that_one_process_sees_put_back_gives_no_second_helping(path):
    first, second, _ = admissions(path, limits(Rate("burst", 2, 1)))
    assert [first.enter(NOON + 1) for _ in range(2)] == [None, None]

    assert second.enter(NOON + 0.9) is not None
    assert first.enter(NOON + 1.1) is not None


def test_customers_and_limits_do_not_mix(path):
    counts = SharedCounts(path)
    one = Admission(1, limits(Rate("burst", 1, 1)), shared=counts)
    other = Admission(2, limits(Rate("burst", 1, 1)), shared=counts)
    key = Admission(1, limits(Rate("burst", 1, 1)), key_id="k", shared=counts)

    assert [each.enter(NOON) for each in (one, other, key)] == [None] * 3
    assert all(each.enter(NOON) is not None for each in (one, other, key))


def test_windows_that_are_over_make_room(path):
    """More windows than the table has slots, one after the other."""
    counts = SharedCounts(path)
    hints = {}
    for second in range(60):
        for customer in range(4000):
            key = key_of(customer, second)
            at = counts.find(key, second, second + 1)
            assert counts.cells[at] == 0
            counts.cells[at] = customer
            hints[customer] = (key, at)
        for customer, (key, at) in hints.items():
            found = counts.find(key, second, second + 1, at)
            assert counts.cells[found] == customer


def _enter_often(path, process, admitted):
    plan = limits(Rate("hour", 5000, HOUR))
    counts = SharedCounts(path, process=process, processes=4)
    admission = Admission(1, plan, shared=counts)
    outcomes = [admission.enter(NOON) for _ in range(4000)]
    admitted.put(outcomes.count(None))


def test_real_processes_admit_exactly_the_limit(path):
    context = multiprocessing.get_context("spawn")
    admitted = context.Queue()
    processes = [
        context.Process(target=_enter_often, args=(path, n, admitted)) for n in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert sum(admitted.get() for _ in processes) == 5000


def test_a_process_that_is_killed_with_the_lock_does_not_keep_it(path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from accounts.admission.shared_counts import SharedCounts;"
        f"counts = SharedCounts(Path({str(path)!r})); counts.lock();"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        other.send_signal(signal.SIGKILL)
        other.wait()

    counts = SharedCounts(path)

    counts.lock()
    counts.unlock()
