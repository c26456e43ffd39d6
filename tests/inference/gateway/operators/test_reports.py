from inference.gateway.metrics.calls import Metrics
from inference.gateway.operators.reports import GatewayReport, metrics_of, readiness
from inference.installation.ledger_report import Gauge, JobCounts
from tests.accounts.metering.test_spool import event
from tests.inference.gateway.metrics.test_calls import only, parsed, text


def report(name, *, calls=0, ready=True, waiting_for=(), sequence=3, **gauges):
    metrics = Metrics()
    for _ in range(calls):
        metrics.observe(event(2, version="1", status=200))
    metrics.unauthenticated = calls
    return GatewayReport(
        name=name,
        boot_id=f"boot of {name}",
        metrics=metrics.state(),
        gauges=[Gauge(name, value) for name, value in gauges.items()],
        ready=ready,
        waiting_for=list(waiting_for),
        snapshot_sequence=sequence,
    )


def found_in(*reports, expected=()):
    return parsed(text(metrics_of(reports, expected=expected)))


def test_counts_of_each_gateway_are_its_own():
    found = found_in(report("a", calls=3), report("b", calls=4))

    assert only(found, "modelyard_requests_total", gateway="a", status=200) == [3]
    assert only(found, "modelyard_requests_total", gateway="b", status=200) == [4]
    assert only(found, "modelyard_rows_total", version=1) == [6, 8]
    assert only(found, "modelyard_request_rows_count", version=1) == [3, 4]
    assert only(found, "modelyard_unauthenticated_requests_total") == [3, 4]


def test_no_count_falls_when_a_gateway_restarts_or_is_not_heard():
    before = found_in(report("a", calls=3), report("b", calls=40))
    restarted = found_in(report("a", calls=3), report("b", calls=1))
    unheard = found_in(report("a", calls=3), expected=("a", "b"))

    # The counter of `b` begins anew, which Prometheus understands; `a` keeps its own.
    for found in (before, restarted, unheard):
        assert only(found, "modelyard_requests_total", gateway="a") == [3]
    assert only(restarted, "modelyard_requests_total", gateway="b") == [1]
    assert only(unheard, "modelyard_requests_total", gateway="b") == []


def test_what_jobs_predicted_is_counted_once_beside_all_gateways():
    fresh, old = report("a", calls=3), report("b", calls=4)
    fresh.jobs = [JobCounts("m", "1", "default", 2, 700, 5_000_000)]
    old.jobs = [JobCounts("m", "1", "default", 1, 200, 1_000_000)]

    found = found_in(fresh, old)

    of_jobs = {"gateway": "", "operation": "job"}
    assert only(found, "modelyard_requests_total", **of_jobs) == [2]
    assert only(found, "modelyard_rows_total", **of_jobs) == [700]
    assert only(found, "modelyard_compute_seconds_total", **of_jobs) == [5]
    assert sorted(only(found, "modelyard_rows_total", version=1)) == [6, 8, 700]


def test_who_answers_knows_the_engines_best():
    status = {"counters": {}, "memory_bytes": 1, "device_status": None, "versions": []}
    fresh, old = report("a"), report("b")
    fresh.engines = {"cpu": status | {"counters": {"rows": 100}}}
    old.engines = {
        "cpu": status | {"counters": {"rows": 90}},
        "cuda-0": status | {"counters": {"rows": 5}},
    }

    found = found_in(fresh, old)

    assert only(found, "modelyard_engine_rows_total", engine="cpu") == [100]
    assert only(found, "modelyard_engine_rows_total", engine="cuda-0") == [5]


def test_a_gateway_that_does_not_report_is_shown_as_down():
    found = found_in(report("a", calls=3), expected=("a", "b"))

    assert only(found, "modelyard_gateway_up", gateway="a") == [1]
    assert only(found, "modelyard_gateway_up", gateway="b") == [0]
    assert only(found, "modelyard_requests_total", status=200) == [3]


def test_the_worst_gauge_of_all_gateways_counts():
    reports = [
        report("a", leases_failing=0.0, snapshot_age_seconds=2.0, spool_failing=1.0),
        report("b", leases_failing=1.0, snapshot_age_seconds=9.0, spool_failing=0.0),
    ]

    found = found_in(*reports)

    assert only(found, "modelyard_leases_failing") == [1]
    assert only(found, "modelyard_snapshot_age_seconds") == [9]
    assert only(found, "modelyard_spool_failing") == [1]


def test_one_gateway_that_waits_makes_the_machine_wait():
    detail = readiness(
        [report("a"), report("b", ready=False, waiting_for=["m"], sequence=2)],
        expected=("a", "b", "c"),
    )

    assert detail["ready"] is False
    assert detail["waiting_for"] == ["m"]
    assert detail["snapshot_sequence"] == 2
    assert [name for name, its in detail["gateways"].items() if its["ready"]] == ["a"]
    assert detail["gateways"]["c"] == {"up": False, "ready": False}


def test_a_model_that_was_never_served_makes_no_gateway_unready():
    detail = readiness([report("a", waiting_for=["m has no default yet"])])

    assert detail["ready"] is True
    assert detail["waiting_for"] == ["m has no default yet"]


def test_a_gateway_that_is_away_does_not_make_the_others_wait():
    assert readiness([report("a")], expected=("a", "b"))["ready"] is True
