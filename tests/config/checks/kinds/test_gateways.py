import socket

from benchmarks.ports import free_port
from config.checks.kinds import gateways
from inference.gateway.metrics.calls import Metrics
from inference.gateway.operators.reports import GatewayReport
from inference.installation.ledger_report import Gauge


def report(name="gateway", *, ready=True, **facts):
    return GatewayReport(
        **{
            "name": name,
            "boot_id": "b",
            "metrics": Metrics().state(),
            "gauges": [],
            "ready": ready,
            "waiting_for": [],
            "snapshot_sequence": 1,
            **facts,
        }
    )


def codes(*reports, expected=("gateway",)):
    found = gateways.judge(reports, expected=expected)
    return [finding.code for finding in found]


def test_gateways_that_answer_are_well():
    assert codes(report()) == [""]


def test_no_gateway_means_that_nothing_runs():
    assert codes() == ["stopped"]


def test_a_port_that_another_program_has_is_named(settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = settings.MODELYARD_OPERATOR_PORT = other.getsockname()[1]
        settings.MODELYARD_PORT = settings.MODELYARD_GRPC_PORT = 0
        stopped, taken = gateways.look()

    assert stopped.code == "stopped"
    assert taken.sentence == f"Port {number} on 127.0.0.1 is taken by another program."
    assert f"sport = :{number}" in taken.mend
    assert taken.mend.endswith("or change MODELYARD_OPERATOR_PORT")


def test_free_ports_are_not_named(settings):
    settings.MODELYARD_PORT = settings.MODELYARD_OPERATOR_PORT = free_port()
    settings.MODELYARD_GRPC_PORT = 0

    assert [it.code for it in gateways.look()] == ["stopped"]


def test_a_gateway_that_is_away_is_named():
    [found] = gateways.judge([report()], expected=("gateway", "gateway-2"))

    assert found.code == "gateway-away"
    assert "gateway-2." in found.sentence


def test_models_that_cannot_answer_are_named():
    assert codes(report(waiting_for=["echo v1 is away"])) == ["model-waits"]
    assert codes(report(ready=False, waiting_for=["echo"])) == ["not-ready"]


def test_a_spool_that_fails_is_named_instead_of_its_effect():
    failing = [Gauge("spool_failing", 1.0), Gauge("leases_failing", 1.0)]

    assert codes(report(ready=False, gauges=failing)) == [
        *("usage-not-written", "quotas-not-lent"),
    ]


def test_a_proxy_that_is_not_trusted_is_named():
    facts = {"relayed": 10, "distrusted": 9, "distrusted_peer": "10.0.0.5"}

    [found] = gateways.judge([report(**facts)], expected=["gateway"])

    assert found.code == "proxy-not-trusted"
    assert "90 %" in found.sentence
    assert "MODELYARD_TRUSTED_PROXIES=10.0.0.5" in found.mend


def test_a_caller_who_sends_the_header_now_and_then_is_no_proxy():
    facts = {"relayed": 100, "distrusted": 9, "distrusted_peer": "10.0.0.5"}

    assert codes(report(**facts)) == [""]
