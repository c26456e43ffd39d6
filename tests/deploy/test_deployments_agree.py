"""Test that no deployment forgets a process, a setting, a port or the home.

Each comparison is tried on copies from which something was taken.
"""

import shutil
from dataclasses import replace

import pytest
import yaml

from config.processes import specs
from tests.deploy import deployments
from tests.deploy.chart import CHART
from tests.deploy.deployments import ROOT, complaints

UNIT = ROOT / "deploy/systemd/modelyard.service"
ENVIRONMENT = ROOT / "deploy/modelyard.env"
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
STATEFUL_SET = "templates/statefulset.yaml"
HELPERS = "templates/_helpers.tpl"


@pytest.fixture
def table(settings):
    settings.MODELYARD_GATEWAYS = 2
    settings.MODELYARD_DEVICES = ["cpu"]
    return {spec.name: spec for spec in specs.process_specs()}


def of_unit(table, *, unit=None, environment=None):
    return deployments.of_unit(
        unit or UNIT.read_text(), environment or ENVIRONMENT.read_text(), table
    )


def of_compose(*, compose=None, dockerfile=None, profile="cpu"):
    return deployments.of_compose(
        yaml.safe_load(compose or COMPOSE.read_text()),
        dockerfile or DOCKERFILE.read_text(),
        profile=profile,
    )


def test_the_chart_agrees_with_the_table(table):
    assert complaints(deployments.of_chart(), table) == []


def test_the_unit_agrees_with_the_table(table):
    assert complaints(of_unit(table), table) == []


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_compose_agrees_with_the_table(table, profile):
    assert complaints(of_compose(profile=profile), table) == []


def test_compose_and_the_chart_mount_the_same_parts_of_the_home():
    compose, chart = of_compose().processes, deployments.of_chart().processes

    assert chart["gateway"].parts
    assert chart["host"].parts
    for name, process in chart.items():
        assert compose[name].parts == process.parts, name


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("\n  controller:\n", "\n  comptroller:\n", "controller is missing"),
        ("[run, beat]", "[run, site]", "beat runs modelyard run site"),
        ("stop_grace_period: 35s", "stop_grace_period: 5s", "to stop, and needs 30 s"),
        ("EXPOSE 8000 8001 8002", "EXPOSE 8000 8001", "port 8002 is not open"),
        ('"home:/var/lib/modelyard"', '"/srv:/var/lib/modelyard"', "site has no home"),
        ('  HTTPS: "true"\n', "", "site lacks HTTPS"),
        ('MODELYARD_GATEWAYS: "2"', 'MODELYARD_GATEWAY: "2"', "which is no setting"),
        ("CACHE_URL_FILE: /run", "CASH_URL_FILE: /run", "site lacks CACHE_URL"),
        (
            "  environment: *settings",
            "  environment: {<<: *settings, DATABASE_URL_FILE: /run/x}",
            "host sees DATABASE_URL_FILE",
        ),
        ("    worker: {condition", "    mlflow: {condition", "must stop before worker"),
    ],
)
def test_what_compose_forgets_is_seen(table, old, new, complaint):
    compose, dockerfile = COMPOSE.read_text(), DOCKERFILE.read_text()
    assert old in compose + dockerfile

    changed = of_compose(
        compose=compose.replace(old, new), dockerfile=dockerfile.replace(old, new)
    )

    assert complaint in "\n".join(complaints(changed, table))


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (STATEFUL_SET, '"controller" "worker"', '"worker"', "controller is missing"),
        (
            STATEFUL_SET,
            '"run" "beat"',
            '"run" "worker"',
            "beat runs modelyard run worker",
        ),
        (STATEFUL_SET, "add1 .Values.gateways", "int 2", "gateway-2 is missing"),
        (STATEFUL_SET, "containerPort: 8001", "containerPort: 9001", "port 8001"),
        (STATEFUL_SET, "mul 15", "mul 10", "to stop, and needs"),
        (
            STATEFUL_SET,
            "range rest $sidecars",
            "range reverse (rest $sidecars)",
            "worker must stop before controller",
        ),
        (
            STATEFUL_SET,
            '"image" "gateway" "django" false',
            '"image" "gateway" "django" true',
            "gateway sees DATABASE_URL_FILE",
        ),
        (
            HELPERS,
            '  "LOG_TO" "stdout"\n',
            "",
            "site must agree with the others on LOG_TO",
        ),
        (HELPERS, '"HTTPS" (', '"HTTP_S" (', "site lacks HTTPS"),
        (HELPERS, "MODELYARD_GATEWAYS", "MODELYARD_GATEWAY", "which is no setting"),
        (
            HELPERS,
            "mountPath: /var/lib/modelyard",
            "mountPath: /srv",
            "beat has no home",
        ),
    ],
)
def test_what_the_chart_forgets_is_seen(tmp_path, table, file, old, new, complaint):
    copy = tmp_path / "modelyard"
    shutil.copytree(CHART, copy)
    text = (copy / file).read_text()
    assert old in text

    (copy / file).write_text(text.replace(old, new))

    assert complaint in "\n".join(complaints(deployments.of_chart(copy), table))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("manage.py serve", "manage.py run_controller", "gateway is missing"),
        ("TimeoutStopSec=90", "TimeoutStopSec=40", "to stop, and needs"),
        ("StateDirectory=modelyard", "StateDirectory=other", "has no home"),
        ("MODELYARD_OPERATOR_PORT=8001", "", "port 8001 is not open"),
        ("LOG_TO=stdout", "", "site must agree with the others on LOG_TO"),
        ("HTTPS=true", "HTPS=true", "HTPS, which is no setting"),
    ],
)
def test_what_the_unit_forgets_is_seen(table, old, new, complaint):
    unit, environment = UNIT.read_text(), ENVIRONMENT.read_text()
    assert old in unit + environment

    changed = of_unit(
        table,
        unit=unit.replace(old, new),
        environment=environment.replace(old, new),
    )

    assert complaint in "\n".join(complaints(changed, table))


def test_a_new_process_is_missed_everywhere(table):
    all_of_them = (deployments.of_chart(), of_compose(), of_unit(table))
    table["rollouts"] = replace(table["beat"], name="rollouts")

    for deployment in all_of_them:
        assert "rollouts is missing" in complaints(deployment, table)


def test_a_process_that_is_gone_is_noticed(table):
    deployment = deployments.of_chart()
    del table["internal"]

    assert "internal is not in the table of processes" in complaints(deployment, table)
