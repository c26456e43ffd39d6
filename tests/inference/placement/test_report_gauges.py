from inference.engine.wire.messages import VersionKey
from inference.placement import report_gauges
from inference.placement.processes import Death, HostReport, ProcessReport

CHURN = VersionKey("churn", 3)


def test_a_report_becomes_gauges():
    death = Death(at=1.0, process="churn-a1", version=CHURN, reason="It died.")
    earlier = Death(
        at=3.5 + 100.0 - 86_400.0, process="churn-a1", version=CHURN, reason=""
    )
    report = HostReport(
        host="a",
        at=100.0,
        processes=(
            ProcessReport(name="cpu", state="running", memory_bytes=5),
            ProcessReport(name="churn-a1", state="quarantined", quarantined=(CHURN,)),
        ),
        deaths=(
            earlier,
            death,
            death,
            Death(at=2.0, process="cpu", version=None, reason=""),
        ),
    )

    found = report_gauges.gauges(report, now=103.5)

    assert [(it.name, it.value, it.labels) for it in found] == [
        ("host_report_age_seconds", 3.5, {}),
        ("process_running", 1.0, {"engine": "cpu"}),
        ("process_memory_bytes", 5.0, {"engine": "cpu"}),
        ("process_running", 0.0, {"engine": "churn-a1"}),
        ("process_memory_bytes", 0.0, {"engine": "churn-a1"}),
        ("version_quarantined", 1.0, {"model": "churn", "version": "3"}),
        ("process_deaths_today", 2.0, {"model": "churn", "version": "3"}),
    ]


def test_an_old_report_says_only_how_old_it_is():
    report = HostReport(
        host="a", at=100.0, processes=(ProcessReport(name="cpu", state="running"),)
    )

    found = report_gauges.gauges(report, now=161.0)

    assert [(it.name, it.value) for it in found] == [("host_report_age_seconds", 61.0)]
