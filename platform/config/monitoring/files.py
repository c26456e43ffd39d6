"""Write deploy/monitoring, and the tables of docs/monitoring.md."""

import json
from collections.abc import Iterable, Iterator

import yaml

from config.monitoring.alerts import ALERTS, RULES
from config.monitoring.dashboards import DASHBOARDS, as_grafana
from inference.metrics.table import METRICS, Measure

_ABOUT = "# Written by `manage.py write_monitoring`.\n"
_RUNBOOK = "docs/troubleshooting.md"
_SOURCES = {
    "gateways": "each gateway",
    "engines": "each engine, asked by the gateways",
    "host": "the host's report",
    "ledger": "the controller's report",
    "processes": "the report of each process",
    "facts": "the controller's process, from database and broker",
}


def files() -> dict[str, str]:
    """Return the text of each file below deploy/monitoring."""
    return {
        "rules.yml": _yaml(
            {
                "groups": [
                    {
                        "name": "modelyard",
                        "rules": [
                            {"record": rule.name, "expr": rule.query} for rule in RULES
                        ],
                    }
                ]
            }
        ),
        "alert_rules.yml": _yaml(
            {
                "groups": [
                    {
                        "name": "modelyard-alerts",
                        "rules": [
                            {
                                "alert": f"Modelyard{alert.name}",
                                "expr": alert.query,
                                "for": alert.lasts,
                                "labels": {"severity": alert.severity},
                                "annotations": {
                                    "summary": alert.wrong,
                                    "costs": alert.costs,
                                    "mend": alert.mend,
                                    "runbook": f"{_RUNBOOK}#{alert.section}",
                                },
                            }
                            for alert in ALERTS
                        ],
                    }
                ]
            }
        ),
        "prometheus.yml": _yaml(
            {
                "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
                "rule_files": ["rules.yml", "alert_rules.yml"],
                "scrape_configs": [
                    {
                        "job_name": "modelyard",
                        # MODELYARD_OPERATOR_HOST and MODELYARD_OPERATOR_PORT.
                        "static_configs": [{"targets": ["127.0.0.1:8001"]}],
                    }
                ],
            }
        ),
        **{
            f"grafana/{dashboard.name}.json": json.dumps(
                as_grafana(dashboard), indent=2
            )
            + "\n"
            for dashboard in DASHBOARDS
        },
    }


def metrics_as_markdown() -> str:
    """Return the tables of all metrics, one for each source."""
    tables = []
    for source, name in _SOURCES.items():
        measures = [it for it in METRICS.values() if it.source == source]
        rows = (
            (f"`{_shown(it)}`", it.kind, " ".join(_labels(it)), it.about)
            for it in measures
        )
        table = _table(("metric", "type", "labels", "what it says"), rows)
        tables.append(f"From {name}:\n\n{table}")
    return "\n\n".join(tables)


def alerts_as_markdown() -> str:
    rows = (
        (
            f"`Modelyard{alert.name}`",
            alert.severity,
            alert.wrong,
            alert.costs,
            f"{alert.mend} [More](troubleshooting.md#{alert.section})",
        )
        for alert in ALERTS
    )
    return _table(("alert", "severity", "what is wrong", "what it costs", "mend"), rows)


def filled(document: str) -> str:
    """Return docs/monitoring.md with the tables between its marks."""
    for name, text in (
        ("metrics", metrics_as_markdown()),
        ("alerts", alerts_as_markdown()),
    ):
        first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = document.split(first)
        _, after = rest.split(last)
        document = f"{before}{first}\n{text}\n\n{last}{after}"
    return document


def _shown(measure: Measure) -> str:
    return measure.full_name + ("_total" if measure.kind == "counter" else "")


def _labels(measure: Measure) -> Iterator[str]:
    return (f"`{label}`" for label in measure.labels)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _yaml(content: object) -> str:
    return _ABOUT + yaml.safe_dump(content, sort_keys=False, width=88)
