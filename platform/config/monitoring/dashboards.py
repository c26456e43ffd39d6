"""Describe the dashboards, and write them as Grafana reads them."""

from typing import Any, Literal, NamedTuple

Kind = Literal["timeseries", "stat", "table"]
_COLUMNS = 24


class Panel(NamedTuple):
    title: str
    # Each query and the name of its lines; `{{model}}` is a label's value.
    queries: tuple[tuple[str, str], ...]
    # As Grafana names it.
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8


class Dashboard(NamedTuple):
    name: str
    title: str
    panels: tuple[Panel, ...]
    # A label by which people choose, and the metric that has its values.
    choice: tuple[str, str] | None = None


_CALLS = "modelyard_requests_total"
_TIMES = "modelyard_request_duration_seconds_bucket"


def _quantiles(series: str, by: str = "") -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({series}[5m])))", name)
        for share, name in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))
    )


_OVERVIEW = Dashboard(
    "overview",
    "Modelyard: overview",
    (
        Panel("Ready", (("modelyard_ready", "ready"),), kind="stat", width=4),
        Panel(
            "Failed calls, 30 days' objective 0.1 %",
            (("modelyard:failed_calls:ratio_rate1h", "last hour"),),
            "percentunit",
            "stat",
            5,
        ),
        Panel(
            "Predictions above 1 s, objective 1 %",
            (("modelyard:slow_predictions:ratio_rate1h", "last hour"),),
            "percentunit",
            "stat",
            5,
        ),
        Panel(
            "Processes away",
            (("count(modelyard_process_up == 0) or vector(0)", "processes"),),
            kind="stat",
            width=5,
        ),
        Panel(
            "Alerts that fire",
            (
                (
                    'count(ALERTS{alertname=~"Modelyard.*",alertstate="firing"}) '
                    "or vector(0)",
                    "alerts",
                ),
            ),
            kind="stat",
            width=5,
        ),
        Panel("Calls", (("modelyard:calls:rate5m", "{{model}}"),), "reqps"),
        Panel(
            "Calls by status",
            ((f"sum by (status) (rate({_CALLS}[5m]))", "{{status}}"),),
            "reqps",
        ),
        Panel("Time to the answer", _quantiles(_TIMES), "s"),
        Panel(
            "Errors by code",
            (
                (
                    "sum by (code) (rate(modelyard_errors_total[5m])) or vector(0)",
                    "{{code}}",
                ),
                (
                    "sum(rate(modelyard_unauthenticated_requests_total[5m]))",
                    "without a valid key",
                ),
                (
                    "sum(rate(modelyard_abandoned_requests_total[5m]))",
                    "left before the answer",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Bounds without room",
            (
                (
                    "sum by (bound) (rate(modelyard_bound_refusals_total[5m]))",
                    "{{bound}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Site",
            (
                (
                    "sum by (status) (rate(modelyard_site_requests_total[5m]))",
                    "{{status}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Time of the site's answers",
            _quantiles("modelyard_site_request_duration_seconds_bucket"),
            "s",
        ),
        Panel(
            "Processor by process",
            (("rate(modelyard_process_cpu_seconds_total[5m])", "{{process}}"),),
            "short",
        ),
        Panel(
            "Memory by process",
            (("modelyard_process_resident_bytes", "{{process}}"),),
            "bytes",
        ),
        Panel(
            "Open files by process",
            (("modelyard_process_open_files", "{{process}}"),),
        ),
        Panel(
            "Processes",
            (("modelyard_process_up", "{{process}}"),),
        ),
        Panel(
            "Dependencies",
            (("modelyard_dependency_up", "{{dependency}}"),),
        ),
        Panel(
            "Spool",
            (
                ("modelyard_spool_bytes", "on disk"),
                ("modelyard_spool_uncounted_bytes", "not counted"),
            ),
            "bytes",
        ),
        Panel("Free disk", (("modelyard_disk_free_bytes", "free"),), "bytes"),
        Panel(
            "Ages",
            (
                ("modelyard_snapshot_age_seconds", "snapshot"),
                ("modelyard_ledger_report_age_seconds", "controller"),
                ("modelyard_host_report_age_seconds", "host"),
                ("modelyard_registry_sync_age_seconds", "registry sync"),
            ),
            "s",
        ),
        Panel(
            "Snapshots published",
            (
                (
                    "sum by (kind) (increase(modelyard_snapshots_published_total[5m]))",
                    "{{kind}}",
                ),
            ),
        ),
        Panel(
            "Versions that run",
            (("count by (version, python) (modelyard_build_info)", "{{version}}"),),
            kind="table",
        ),
    ),
)

_OF_MODEL = '{model=~"$model"}'
_MODEL = Dashboard(
    "model",
    "Modelyard: model",
    (
        Panel(
            "Calls by version",
            (
                (
                    f"sum by (model, version, variant) (rate({_CALLS}{_OF_MODEL}[5m]))",
                    "{{model}} {{version}} {{variant}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Calls by status",
            ((f"sum by (status) (rate({_CALLS}{_OF_MODEL}[5m]))", "{{status}}"),),
            "reqps",
        ),
        Panel("Time to the answer", _quantiles(f"{_TIMES}{_OF_MODEL}"), "s"),
        Panel(
            "Errors by code",
            (
                (
                    "sum by (code) "
                    f"(rate(modelyard_errors_total{_OF_MODEL}[5m])) or vector(0)",
                    "{{code}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Rows",
            (
                (
                    f"sum by (model) (rate(modelyard_rows_total{_OF_MODEL}[5m]))",
                    "{{model}}",
                ),
            ),
            "rowsps",
        ),
        Panel(
            "Rows per call",
            _quantiles(f"modelyard_request_rows_bucket{_OF_MODEL}"),
        ),
        Panel(
            "Rows per batch",
            (
                (
                    "sum by (model, version) "
                    f"(rate(modelyard_version_rows_total{_OF_MODEL}[5m])) / "
                    "sum by (model, version) "
                    f"(rate(modelyard_version_batches_total{_OF_MODEL}[5m]) > 0)",
                    "{{model}} {{version}}",
                ),
            ),
        ),
        Panel(
            "Time on the device",
            (
                (
                    "sum by (model, version) "
                    f"(rate(modelyard_compute_seconds_total{_OF_MODEL}[5m]))",
                    "{{model}} {{version}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Rows that wait",
            (
                (
                    f"modelyard_version_queued_rows{_OF_MODEL}",
                    "{{model}} {{version}} on {{engine}}",
                ),
            ),
        ),
        Panel(
            "Memory",
            (
                (
                    f"modelyard_version_memory_bytes{_OF_MODEL}",
                    "{{model}} {{version}} on {{engine}}",
                ),
            ),
            "bytes",
        ),
        Panel(
            "States",
            (
                (
                    f"modelyard_version_state{_OF_MODEL} == 1",
                    "{{model}} {{version}}: {{state}}",
                ),
            ),
            kind="table",
        ),
        Panel(
            "Rollouts that have not ended",
            (("modelyard_rollouts", "{{state}}"),),
        ),
        Panel(
            "Moves of rollouts, per hour",
            (
                (
                    "sum by (action, guard) "
                    "(increase(modelyard_rollout_moves_total[1h])) or vector(0)",
                    "{{action}} {{guard}}",
                ),
            ),
        ),
        Panel(
            "Copies of calls to shadows, by outcome",
            (
                (
                    "sum by (model, version, outcome) "
                    f"(rate(modelyard_shadow_calls_total{_OF_MODEL}[5m])) or vector(0)",
                    "{{model}} {{version}} {{outcome}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Feedback of all models, by result",
            (
                (
                    "sum by (result) (rate(modelyard_feedback_total[5m])) or vector(0)",
                    "{{result}}",
                ),
            ),
            "cps",
        ),
    ),
    ("model", "modelyard_requests_total"),
)

_OF_CUSTOMER = '{customer=~"$customer"}'
_CUSTOMER = Dashboard(
    "customer",
    "Modelyard: customers",
    (
        Panel(
            "Calls per second, the busiest customers",
            (
                (
                    "sum by (customer) "
                    f"(modelyard_customer_recent_calls{_OF_CUSTOMER}) / 300",
                    "{{customer}}",
                ),
            ),
            "reqps",
            width=12,
        ),
        Panel(
            "Rows per second",
            (
                (
                    f"modelyard_customer_recent_rows{_OF_CUSTOMER} / 300",
                    "{{customer}}",
                ),
            ),
            "rowsps",
            width=12,
        ),
        Panel(
            "Calls by class of status",
            (
                (
                    "sum by (customer, status) "
                    f"(modelyard_customer_recent_calls{_OF_CUSTOMER}) / 300",
                    "{{customer}} {{status}}",
                ),
            ),
            "reqps",
            width=12,
        ),
        Panel(
            "Share of all calls",
            (
                (
                    "sum by (customer) "
                    f"(modelyard_customer_recent_calls{_OF_CUSTOMER}) / on () "
                    "group_left () sum(modelyard_customer_recent_calls)",
                    "{{customer}}",
                ),
            ),
            "percentunit",
            width=12,
        ),
        Panel(
            "Quotas",
            (
                ("modelyard_keys_backing_off", "keys closed for a while"),
                ("modelyard_overdrawn_units", "units beyond leases"),
                (
                    "sum(rate(modelyard_lease_failures_total[5m])) or vector(0)",
                    "lease failures per second",
                ),
            ),
            width=12,
        ),
    ),
    ("customer", "modelyard_customer_recent_rows"),
)

_OF_ENGINE = '{engine=~"$engine"}'


def _per_engine(title: str, metric: str, unit: str = "short") -> Panel:
    query = f"modelyard_engine_{metric}{_OF_ENGINE}"
    if metric.endswith("_total"):
        query = f"rate({query}[5m])"
    return Panel(title, ((query, "{{engine}}"),), unit)


_ENGINE = Dashboard(
    "engine",
    "Modelyard: engines",
    (
        Panel("Up", ((f"modelyard_engine_up{_OF_ENGINE}", "{{engine}}"),)),
        _per_engine("Share of time that the device is busy", "busy_seconds_total"),
        _per_engine("Rows per second", "rows_total", "rowsps"),
        _per_engine("Batches per second", "batches_total"),
        Panel(
            "Rows per batch",
            _quantiles(f"modelyard_engine_batch_rows_bucket{_OF_ENGINE}"),
        ),
        Panel(
            "Time in the queue",
            _quantiles(f"modelyard_engine_queue_seconds_bucket{_OF_ENGINE}"),
            "s",
        ),
        _per_engine("Rows that wait", "queued_rows"),
        _per_engine("Requests not answered yet", "unanswered"),
        Panel(
            "Refused by bound",
            (
                (
                    "sum by (bound) "
                    f"(rate(modelyard_engine_refused_total{_OF_ENGINE}[5m]))",
                    "{{bound}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Dropped and failed",
            tuple(
                (f"sum(rate(modelyard_engine_{name}_total{_OF_ENGINE}[5m]))", says)
                for name, says in (
                    ("late", "too late"),
                    ("left", "caller left"),
                    ("model_errors", "failed batches"),
                    ("evictions", "evictions"),
                )
            ),
        ),
        Panel(
            "Stream chunks per second",
            ((f"modelyard:stream_chunks:rate1m{_OF_ENGINE}", "{{engine}}"),),
        ),
        _per_engine("Streams running", "running_streams"),
        _per_engine("Processor", "cpu_seconds_total"),
        _per_engine("Memory of the process", "memory_bytes", "bytes"),
        Panel(
            "Memory of versions and its budget",
            (
                (f"modelyard_engine_versions_memory_bytes{_OF_ENGINE}", "{{engine}}"),
                (
                    f"modelyard_engine_memory_budget_bytes{_OF_ENGINE}",
                    "{{engine}}: budget",
                ),
            ),
            "bytes",
        ),
        Panel(
            "Memory of the device",
            (
                (
                    f"modelyard_engine_device_memory_bytes{_OF_ENGINE}",
                    "{{engine}}: {{kind}}",
                ),
            ),
            "bytes",
        ),
        Panel(
            "Cache of predictions: share of hits",
            (("modelyard:cache_hits:ratio_rate5m", "hits"),),
            "percentunit",
        ),
        Panel(
            "Deaths in 24 hours, and versions in quarantine",
            (
                (
                    "sum by (model, version) (modelyard_process_deaths_today) "
                    "or vector(0)",
                    "{{model}} {{version}}: deaths",
                ),
                (
                    "count(modelyard_version_quarantined) or vector(0)",
                    "in quarantine",
                ),
            ),
        ),
    ),
    ("engine", "modelyard_engine_up"),
)

_JOBS = Dashboard(
    "jobs",
    "Modelyard: jobs",
    (
        Panel("Jobs by state", (("modelyard_jobs", "{{state}}"),)),
        Panel(
            "Age of the oldest",
            (
                (
                    "modelyard_job_oldest_age_seconds or vector(0)",
                    "{{state}}",
                ),
            ),
            "s",
        ),
        Panel("Ended in 24 hours", (("modelyard_jobs_ended_today", "{{state}}"),)),
        Panel(
            "Rows of jobs per second",
            (
                (
                    'sum by (model) (rate(modelyard_rows_total{operation="job"}[5m])) '
                    "or vector(0)",
                    "{{model}}",
                ),
                ("sum(rate(modelyard_engine_job_rows_total[5m]))", "in engines"),
            ),
            "rowsps",
        ),
        Panel(
            "Messages that wait",
            (("modelyard_waiting_messages", "messages"),),
        ),
        Panel(
            "Background tasks per second",
            (
                (
                    "sum by (task, outcome) (rate(modelyard_tasks_total[5m]))",
                    "{{task}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            "Time of background tasks, 95 %",
            (
                (
                    "histogram_quantile(0.95, sum by (task, le) "
                    "(rate(modelyard_task_duration_seconds_bucket[5m])))",
                    "{{task}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Since each task succeeded",
            (("time() - modelyard_task_succeeded_at_seconds", "{{task}}"),),
            "s",
        ),
        Panel(
            "Mails",
            (
                (
                    "sum by (outcome) (increase(modelyard_mails_total[1h])) "
                    "or vector(0)",
                    "{{outcome}}",
                ),
            ),
        ),
    ),
)

DASHBOARDS = (_OVERVIEW, _MODEL, _CUSTOMER, _ENGINE, _JOBS)

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def as_grafana(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana's JSON model, for any source of Prometheus."""
    variables: list[dict[str, Any]] = [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
        }
    ]
    if dashboard.choice is not None:
        label, metric = dashboard.choice
        variables.append(
            {
                "name": label,
                "label": label.capitalize(),
                "type": "query",
                "datasource": _SOURCE,
                "query": {
                    "query": f"label_values({metric}, {label})",
                    "refId": label,
                },
                "refresh": 2,
                "includeAll": True,
                "allValue": ".*",
                "multi": True,
                "sort": 1,
                "current": {"text": ["All"], "value": ["$__all"]},
            }
        )
    return {
        "uid": f"modelyard-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["modelyard"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "links": [
            {
                "title": "Modelyard",
                "type": "dashboards",
                "tags": ["modelyard"],
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": _placed(dashboard.panels),
    }


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Place panels from left to right, in rows."""
    found = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _COLUMNS:
            x, y, height = 0, y + height, 0
        tall = 4 if panel.kind == "stat" else 8
        found.append(_panel(panel, number) | _place(x, y, panel.width, tall))
        x, height = x + panel.width, max(height, tall)
    return found


def _place(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                **({"min": 0} if panel.kind == "timeseries" else {}),
            },
            "overrides": [],
        },
        "options": {},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": name,
                **(
                    {"format": "table", "instant": True}
                    if panel.kind == "table"
                    else {}
                ),
            }
            for index, (query, name) in enumerate(panel.queries)
        ],
    }
