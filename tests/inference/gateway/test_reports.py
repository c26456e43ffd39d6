from inference.gateway.reports import GatewayReport, metrics_text, readiness
from inference.metrics import Metrics
from tests.inference.test_metrics import only, parsed
from tests.inference.test_spool import event


def report(name, *, calls=0, waiting_for=(), sequence=3, **gauges):
    metrics = Metrics()
    for _ in range(calls):
        metrics.observe(event(2, version="1", status=200))
    metrics.unauthenticated = calls
    return GatewayReport(
        name=name,
        boot_id=f"boot of {name}",
        metrics=metrics.state(),
        gauges=gauges,
        waiting_for=list(waiting_for),
        snapshot_sequence=sequence,
    )


def test_counts_of_all_gateways_are_added_up():
    found = parsed(metrics_text([report("a", calls=3), report("b", calls=4)]))

    assert only(found, "modelyard_requests_total", status=200) == [7]
    assert only(found, "modelyard_rows_total", version=1) == [14]
    assert only(found, "modelyard_request_rows_count", version=1) == [7]
    assert only(found, "modelyard_unauthenticated_requests_total") == [7]


def test_a_gateway_that_does_not_report_is_shown_as_down():
    found = parsed(metrics_text([report("a", calls=3)], expected=("a", "b")))

    assert only(found, "modelyard_gateway_up", gateway="a") == [1]
    assert only(found, "modelyard_gateway_up", gateway="b") == [0]
    assert only(found, "modelyard_requests_total", status=200) == [3]


def test_the_worst_gauge_of_all_gateways_counts():
    reports = [
        report("a", ready=1.0, snapshot_age_seconds=2.0, spool_failing=1.0),
        report("b", ready=0.0, snapshot_age_seconds=9.0, spool_failing=0.0),
    ]

    found = parsed(metrics_text(reports))

    assert only(found, "modelyard_ready") == [0]
    assert only(found, "modelyard_snapshot_age_seconds") == [9]
    assert only(found, "modelyard_spool_failing") == [1]


def test_one_gateway_that_waits_makes_the_machine_wait():
    detail = readiness(
        [report("a"), report("b", waiting_for=["m"], sequence=2)],
        expected=("a", "b", "c"),
    )

    assert detail["ready"] is False
    assert detail["waiting_for"] == ["m"]
    assert detail["snapshot_sequence"] == 2
    assert [name for name, its in detail["gateways"].items() if its["ready"]] == ["a"]
    assert detail["gateways"]["c"] == {"up": False, "ready": False}


def test_a_gateway_that_is_away_does_not_make_the_others_wait():
    assert readiness([report("a")], expected=("a", "b"))["ready"] is True
