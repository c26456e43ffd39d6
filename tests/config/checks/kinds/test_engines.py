from config.checks.kinds import engines
from inference.conditions.states import ServingState
from inference.placement.processes import HostReport, ProcessReport

NOW = 1_000.0


def codes(report):
    return [it.code for it in engines.of_host(report, now=NOW, logs="/logs")]


def test_a_host_that_reports_is_well():
    assert codes(HostReport("a", at=NOW - 2)) == []


def test_a_host_that_reports_no_more_is_silent():
    [found] = engines.of_host(HostReport("a", at=NOW - 40), now=NOW, logs="/logs")

    assert found.code == "host-silent"
    assert "40 seconds ago" in found.sentence
    assert codes(None) == ["host-silent"]


def test_a_process_that_waits_is_named_with_its_log():
    waiting = ProcessReport("cpu", "waiting", problem="It died.\nmore")

    [found] = engines.of_host(
        HostReport("a", at=NOW, processes=(waiting,)), now=NOW, logs="/logs"
    )

    assert found.sentence == "The engine process cpu does not run: It died."
    assert "/logs/engine-cpu.log" in found.mend


def test_an_open_sandbox_is_named():
    walls = {"files": "open: no Landlock", "network": "none"}

    assert codes(HostReport("a", at=NOW, walls=walls)) == ["sandbox-open"]


def test_versions_in_trouble_are_named_by_kind():
    found = engines.of_versions(
        [
            (ServingState.QUARANTINED, "a v1", "It died twice."),
            (ServingState.FAILED, "b v1", "No package."),
            (ServingState.MISFIT, "c v2", "Too large."),
        ]
    )

    assert [it.sentence for it in found] == [
        "a v1 is in quarantine: It died twice.",
        "b v1, c v2 cannot be loaded: No package.",
    ]
