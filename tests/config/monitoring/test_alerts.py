"""Each alert fires on its fault, and is silent without; promtool runs the rules."""

import subprocess

import pytest
import yaml

from config.monitoring import files
from config.monitoring.alerts import ALERTS
from tests.config.monitoring.queries import needs_promtool, unknown

# All windows of time are filled, as far as they matter here.
_MINUTES = 100
_CALLS = 'modelyard_requests_total{operation="predict",status="%s"}'
_TIMES = 'modelyard_request_duration_seconds_%s{operation="predict"%s}'


def _calls(failed):
    return [(_CALLS % 200, "0+1000", "0+1000"), (_CALLS % 503, failed, "0+0.1")]


def _times(within_a_second):
    return [
        (_TIMES % ("bucket", ',le="1"'), within_a_second, "0+9999"),
        (_TIMES % ("count", ""), "0+10000", "0+10000"),
    ]


# For each alert its series: name, values with the fault, values without. A number
# stays; `0+1` grows by one each minute.
SEEDS = {
    "Unreachable": [('up{job="modelyard"}', 0, 1)],
    "NotReady": [("modelyard_ready", 0, 1)],
    "GatewayDown": [('modelyard_gateway_up{gateway="gateway"}', 0, 1)],
    "EngineDown": [('modelyard_engine_up{engine="cpu"}', 0, 1)],
    "ProcessDown": [('modelyard_process_up{process="worker"}', 0, 1)],
    "TwoBeats": [
        ('modelyard_process_up{process="beat"}', 1, 1),
        ('modelyard_process_up{process="beat-2"}', 1, "_"),
    ],
    "SpoolFailing": [("modelyard_spool_failing", 1, 0)],
    "SpoolFills": [
        ("modelyard_spool_bytes", 90, 50),
        ("modelyard_spool_limit_bytes", 100, 100),
    ],
    "UsageBehind": [("modelyard_spool_uncounted_bytes", 60_000_000, 1000)],
    "UsageRollUpLate": [("modelyard_usage_roll_up_lag_seconds", 9000, 60)],
    "LeasesFailing": [("modelyard_leases_failing", 1, 0)],
    "ControllerAway": [("modelyard_ledger_report_age_seconds", 61, 10)],
    "ControllerFails": [
        ('modelyard_controller_step_failures_total{step="publish"}', "0+1", 3)
    ],
    "HostAway": [("modelyard_host_report_age_seconds", 61, 1)],
    "VersionQuarantined": [
        ('modelyard_version_quarantined{model="m",version="1"}', 1, 0)
    ],
    "VersionFailed": [
        ('modelyard_version_state{model="m",version="1",state="failed"}', 1, 0)
    ],
    "EngineRefuses": [
        ('modelyard_engine_refused_total{engine="cpu",bound="queue_rows"}', "0+90", 9)
    ],
    "DeviceMemoryFull": [
        ('modelyard_engine_device_memory_bytes{engine="a",kind="used"}', 99, 50),
        ('modelyard_engine_device_memory_bytes{engine="a",kind="total"}', 100, 100),
    ],
    "DependencyDown": [('modelyard_dependency_up{dependency="broker"}', 0, 1)],
    "FactsOld": [("modelyard_facts_age_seconds", 61, 10)],
    "DiskFills": [
        ("modelyard_disk_free_bytes", 9, 11),
        ("modelyard_disk_bytes", 100, 100),
    ],
    "InodesEnd": [("modelyard_disk_free_inodes", 9999, 1_000_000)],
    "OpenFilesEnd": [
        ('modelyard_process_open_files{process="site"}', 900, 90),
        ('modelyard_process_open_files_limit{process="site"}', 1000, 1000),
    ],
    "CertificateEnds": [
        ("modelyard_grpc_certificate_ends_at_seconds", 86_400, 10_000_000)
    ],
    "NobodyWorks": [
        (
            'modelyard_task_succeeded_at_seconds{task="inference.tasks.sweep_jobs"}',
            10,
            "0+60",
        )
    ],
    "MessagesWait": [("modelyard_waiting_messages", 101, 5)],
    "TasksFail": [('modelyard_tasks_total{task="a",outcome="failed"}', "0+1", 9)],
    "JobsWait": [('modelyard_job_oldest_age_seconds{state="pending"}', 901, 5)],
    "JobsWithoutEngine": [('modelyard_jobs{state="waiting"}', 1, 0)],
    "RolloutPaused": [('modelyard_rollouts{state="paused"}', 1, 0)],
    "RegistryOld": [("modelyard_registry_sync_age_seconds", 901, 60)],
    "MailsFail": [('modelyard_mails_total{outcome="failed"}', "0+1", 2)],
    "SiteFails": [
        ('modelyard_site_requests_total{view="a",status="500"}', "0+10", "0+1"),
        ('modelyard_site_requests_total{view="a",status="200"}', "0+90", "0+90"),
    ],
    "VersionsMixed": [
        ('modelyard_build_info{process="site",version="1"}', 1, 1),
        ('modelyard_build_info{process="worker",version="2"}', 1, "_"),
    ],
    # 2 % and 0.4 % of all calls, where 0.1 % is allowed.
    "FailedCallsBurnFast": _calls("0+20"),
    "FailedCallsBurnSlowly": _calls("0+4"),
    # 20 % and 4 %, where 1 % is allowed.
    "SlowPredictionsBurnFast": _times("0+8000"),
    "SlowPredictionsBurnSlowly": _times("0+9600"),
}


# These look at the same calls as their faster kin.
SLOWLY = [name for name in SEEDS if name.endswith("Slowly")]


def _test(names, *, column):
    """Let all faults happen at once, as each costs seconds to evaluate."""
    series = {one[0]: one[column] for name in names for one in SEEDS[name]}
    fires = column == 1
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": f"{values}x{_MINUTES}"}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": "count by (severity) (ALERTS{alertstate='firing',"
                f"alertname='Modelyard{alert.name}'}})",
                "eval_time": "90m",
                "exp_samples": [
                    {"labels": f'{{severity="{alert.severity}"}}', "value": 1}
                ]
                if fires
                else [],
            }
            for alert in ALERTS
            if alert.name in names
        ],
    }


@needs_promtool
def test_each_alert_fires_on_its_fault_and_only_then(tmp_path):
    for name, text in files.files().items():
        if name.endswith(".yml"):
            (tmp_path / name).write_text(text)
    others = SEEDS.keys() - SLOWLY
    tests = [
        _test(others, column=1),
        _test(SLOWLY, column=1),
        _test(SEEDS.keys(), column=2),
    ]
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml", "alert_rules.yml"], "tests": tests})
    )

    ran = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_has_a_fault_to_try():
    assert sorted(SEEDS) == sorted(alert.name for alert in ALERTS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda it: it.name)
def test_an_alert_asks_for_metrics_that_exist(alert):
    assert unknown(alert.query) == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda it: it.name)
def test_an_alert_says_what_it_costs_and_what_to_do(alert):
    for sentence in (alert.wrong, alert.costs, alert.mend):
        assert sentence.endswith(".")
