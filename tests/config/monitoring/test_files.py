import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from django.core.management import call_command

from config.monitoring import files
from config.monitoring.alerts import RULES
from config.monitoring.dashboards import DASHBOARDS, as_grafana
from inference.metrics.table import METRICS
from tests.config.monitoring.queries import needs_promtool, unknown

ROOT = Path(__file__).resolve().parents[3]
PANELS = [
    pytest.param(query, id=f"{dashboard.name}: {panel.title}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for query, _ in panel.queries
]


def test_the_files_in_the_repository_are_those_that_are_written(tmp_path):
    call_command("write_monitoring", tmp_path, verbosity=0)

    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    folder = ROOT / "deploy" / "monitoring"
    kept = {path.relative_to(folder) for path in folder.rglob("*.*")}
    assert written == kept - {Path("try.py")}
    for name in written:
        assert (tmp_path / name).read_text() == (folder / name).read_text(), name


def test_the_document_lists_every_metric_and_alert():
    document = (ROOT / "docs" / "monitoring.md").read_text()

    assert files.filled(document) == document
    for measure in METRICS.values():
        assert measure.full_name in document


@needs_promtool
@pytest.mark.parametrize("of", ["deploy/monitoring", "deploy/containers"])
def test_prometheus_accepts_the_configuration(tmp_path, of):
    shutil.copy(ROOT / of / "prometheus.yml", tmp_path)
    # Containers get the folder with the rules as this one.
    rules = "modelyard" if of == "deploy/containers" else "."
    for path in (ROOT / "deploy" / "monitoring").glob("*rules.yml"):
        (tmp_path / rules).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / rules)

    ran = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    # Rules that are recorded, and alerts.
    assert len(re.findall(r"SUCCESS: \d+ rules found", ran.stdout)) == 2


@pytest.mark.parametrize("query", PANELS)
def test_a_panel_asks_for_metrics_that_exist(query):
    assert unknown(query) == []


def test_a_metric_or_label_that_nobody_counts_is_found():
    assert unknown("rate(modelyard_no_total[5m])") == ["modelyard_no_total"]
    assert unknown('modelyard_jobs{stat="a"}') == ["modelyard_jobs: stat"]
    assert unknown('modelyard_jobs{state="a"}') == []


@pytest.mark.parametrize("rule", RULES, ids=lambda it: it.name)
def test_a_rule_asks_for_metrics_that_exist(rule):
    assert unknown(rule.query) == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda it: it.name)
def test_panels_lie_beside_each_other_and_not_on_top(dashboard):
    taken = set()

    for panel in json.loads(json.dumps(as_grafana(dashboard)))["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
