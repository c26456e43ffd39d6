"""List what operators must hear of: recording rules, objectives and alerts.

An objective allows a share of bad calls in 30 days. How fast it is spent decides how
urgent it is: each alert looks at a long and a short window, so that it neither fires
for a moment's trouble nor goes on after its end (Site Reliability Workbook, chapter 5).
"""

from typing import Literal, NamedTuple

# `page`: wake somebody. `ticket`: look at it in the next days.
Severity = Literal["page", "ticket"]

_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


class Rule(NamedTuple):
    """A recording rule."""

    name: str
    query: str


class Alert(NamedTuple):
    name: str
    query: str
    # How long it must hold.
    lasts: str
    severity: Severity
    # What is wrong, what it costs, and what to do: a sentence each.
    wrong: str
    costs: str
    mend: str
    # The section of docs/troubleshooting.md.
    section: str = ""


class Objective(NamedTuple):
    """A share of calls that must be good."""

    name: str
    title: str
    # The share of bad calls that is allowed.
    allowed: float
    # The share of bad calls in a window of time, which stands for `WINDOW`.
    bad: str
    mend: str
    section: str

    def ratio(self, window: str) -> str:
        return f"modelyard:{self.name}:ratio_rate{window}"

    def rules(self) -> list[Rule]:
        return [
            Rule(self.ratio(window), self.bad.replace("WINDOW", window))
            for window in _WINDOWS
        ]

    def alerts(self) -> list[Alert]:
        return [
            self._alert("Fast", "page", (14.4, "1h", "5m"), (6.0, "6h", "30m")),
            self._alert("Slowly", "ticket", (3.0, "1d", "2h"), (1.0, "3d", "6h")),
        ]

    def _alert(
        self, pace: str, severity: Severity, *burns: tuple[float, str, str]
    ) -> Alert:
        query = " or ".join(
            f"({self.ratio(long)} > {factor * self.allowed:g} "
            f"and {self.ratio(short)} > {factor * self.allowed:g})"
            for factor, long, short in burns
        )
        name = "".join(part.capitalize() for part in self.name.split("_"))
        spent = "within hours or days" if severity == "page" else "before 30 days end"
        return Alert(
            f"{name}Burn{pace}",
            query,
            "2m" if severity == "page" else "15m",
            severity,
            f"Too many calls are bad: {self.title}.",
            f"The objective of 30 days is missed {spent}.",
            self.mend,
            self.section,
        )


# Jobs are not answered to anybody who waits.
_CALLS = 'modelyard_requests_total{operation!="job"}'
_FAILED = 'modelyard_requests_total{operation!="job",status=~"5.."}'
_PREDICTIONS = "modelyard_request_duration_seconds"

OBJECTIVES = (
    Objective(
        "failed_calls",
        "more than 0.1 % of calls get a status of 500 or above",
        0.001,
        f"(sum(rate({_FAILED}[WINDOW])) or vector(0)) / sum(rate({_CALLS}[WINDOW]))",
        "See in the dashboard *Overview* which model and error code it is.",
        "a-caller-sees",
    ),
    Objective(
        "slow_predictions",
        "more than 1 % of predictions take longer than a second",
        0.01,
        f'1 - sum(rate({_PREDICTIONS}_bucket{{operation="predict",le="1"}}[WINDOW])) '
        f'/ sum(rate({_PREDICTIONS}_count{{operation="predict"}}[WINDOW]))',
        "See in the dashboard *Engine* whether requests wait or batches take long.",
        "engines",
    ),
)

RULES = (
    Rule("modelyard:calls:rate5m", f"sum by (model) (rate({_CALLS}[5m]))"),
    Rule(
        "modelyard:call_seconds:p99_5m",
        "histogram_quantile(0.99, sum by (model, le) "
        f"(rate({_PREDICTIONS}_bucket[5m])))",
    ),
    Rule(
        "modelyard:stream_chunks:rate1m",
        "sum by (engine) (rate(modelyard_engine_stream_chunks_total[1m]))",
    ),
    Rule(
        "modelyard:cache_hits:ratio_rate5m",
        "sum(rate(modelyard_cache_hits_total[5m])) / "
        "(sum(rate(modelyard_cache_hits_total[5m])) "
        "+ sum(rate(modelyard_cache_misses_total[5m])))",
    ),
    *(rule for objective in OBJECTIVES for rule in objective.rules()),
)

ALERTS = (
    Alert(
        "Unreachable",
        'up{job=~".*modelyard.*"} == 0',
        "1m",
        "page",
        "Prometheus cannot reach the operators' port.",
        "No gateway of the machine answers, or nobody would know.",
        "Look whether the service runs, and whether its port is open to Prometheus.",
        "serve-is-refused",
    ),
    Alert(
        "NotReady",
        "modelyard_ready == 0",
        "1m",
        "page",
        "A gateway cannot answer any model.",
        "A load balancer sends no calls to it; with one machine, all calls fail.",
        "`/readyz` on the operators' port says what it waits for.",
        "gateways",
    ),
    Alert(
        "GatewayDown",
        "modelyard_gateway_up == 0",
        "1m",
        "page",
        "A gateway does not answer.",
        "The others carry its load, or nobody answers calls.",
        "Read the gateway's log: it says why it ended.",
        "gateways",
    ),
    Alert(
        "EngineDown",
        "modelyard_engine_up == 0",
        "1m",
        "page",
        "An engine does not answer.",
        "Calls to versions that only it holds wait, then get 503.",
        "The page of its version, and the host's log, say why it died.",
        "engines",
    ),
    Alert(
        "ProcessDown",
        'modelyard_process_up{process!~"gateway.*"} == 0',
        "2m",
        "page",
        "A process does not report.",
        "Predictions go on. Pages, jobs, or changes of models and keys do not.",
        "Read the log of the process that the label names.",
        "background-work",
    ),
    Alert(
        "TwoBeats",
        'count(modelyard_process_up{process=~"beat.*"} == 1) > 1',
        "5m",
        "ticket",
        "Two beats run.",
        "Every background task is sent twice.",
        "Stop one of them.",
        "background-work",
    ),
    Alert(
        "SpoolFailing",
        "modelyard_spool_failing == 1",
        "0m",
        "page",
        "Usage events cannot be written.",
        "Nothing is predicted, as it could not be charged.",
        "Make room on the disk of the home, or mend its permissions.",
        "usage",
    ),
    Alert(
        "SpoolFills",
        "modelyard_spool_bytes / modelyard_spool_limit_bytes > 0.8",
        "5m",
        "page",
        "The spool is nearly full of events that are not counted.",
        "At `MODELYARD_SPOOL_MAX_BYTES` nothing is predicted any more.",
        "Bring controller and database back; they empty it.",
        "usage",
    ),
    Alert(
        "UsageBehind",
        "modelyard_spool_uncounted_bytes > 5e7",
        "10m",
        "ticket",
        "The controller counts usage more slowly than it comes.",
        "Usage, invoices and quotas of new leases are behind.",
        "Look at the load of the database and the controller.",
        "usage",
    ),
    Alert(
        "UsageRollUpLate",
        "modelyard_usage_roll_up_lag_seconds > 7200",
        "10m",
        "ticket",
        "Hours of usage are not added up.",
        "Pages about usage get slow.",
        "Look whether the worker runs `roll_up_usage`.",
        "background-work",
    ),
    Alert(
        "LeasesFailing",
        "modelyard_leases_failing == 1",
        "1m",
        "page",
        "The site lends no units of quotas.",
        "Customers go on with 5 % of their quotas, then get 503.",
        "Look at the process `internal` and the database; `lease_refused` in the log "
        "says why.",
        "usage",
    ),
    Alert(
        "ControllerAway",
        "modelyard_ledger_report_age_seconds > 60",
        "1m",
        "page",
        "No controller is active.",
        "Revoked keys go on, new versions do not come, usage is not counted.",
        "Read the controller's log.",
        "snapshot",
    ),
    Alert(
        "ControllerFails",
        "increase(modelyard_controller_step_failures_total[5m]) > 0",
        "5m",
        "page",
        "Steps of the controller fail, such as publishing.",
        "Changes of keys and models do not reach gateways.",
        "Read `controller_step_failed` and `database_unavailable` in its log.",
        "snapshot",
    ),
    Alert(
        "HostAway",
        "modelyard_host_report_age_seconds > 60",
        "1m",
        "page",
        "No host looks after engine processes.",
        "An engine that dies stays dead.",
        "Read the host's log.",
        "engines",
    ),
    Alert(
        "VersionQuarantined",
        "modelyard_version_quarantined == 1",
        "0m",
        "ticket",
        "A version is not started any more, as its process died twice.",
        "Its callers get 503, or the fallback.",
        "Its page shows the deaths; release it there.",
        "engines",
    ),
    Alert(
        "VersionFailed",
        'modelyard_version_state{state="failed"} == 1',
        "5m",
        "ticket",
        "A version cannot be loaded.",
        "Its callers get 503, or the version before it goes on.",
        "Its page in the admin has the reason.",
        "engines",
    ),
    Alert(
        "EngineRefuses",
        "sum by (engine, bound) (rate(modelyard_engine_refused_total[5m])) > 1",
        "5m",
        "ticket",
        "An engine refuses requests because a bound is reached.",
        "Callers get 429 or 503.",
        "See which version has long batches; add a device, or limit the customer.",
        "engines",
    ),
    Alert(
        "DeviceMemoryFull",
        'modelyard_engine_device_memory_bytes{kind="used"} / ignoring (kind) '
        'modelyard_engine_device_memory_bytes{kind="total"} > 0.97',
        "10m",
        "ticket",
        "A device has hardly any memory left.",
        "Batches are halved, and versions leave the memory for others.",
        "Serve fewer versions on it.",
        "engines",
    ),
    Alert(
        "DependencyDown",
        "modelyard_dependency_up == 0",
        "1m",
        "page",
        "Database, broker or cache does not answer.",
        "Without the database, no changes and no pages; without the broker, no jobs; "
        "without the cache, no limits for pages.",
        "Bring back the server that the label names.",
        "database",
    ),
    Alert(
        "FactsOld",
        "modelyard_facts_age_seconds > 60",
        "2m",
        "ticket",
        "The controller's process does not ask database and broker any more.",
        "Alerts about jobs, MLflow and dependencies are blind.",
        "Read `report_failed` in its log.",
        "database",
    ),
    Alert(
        "DiskFills",
        "modelyard_disk_free_bytes / modelyard_disk_bytes < 0.1",
        "5m",
        "page",
        "The disk of the home is nearly full.",
        "When it is full, nothing is predicted.",
        "Make it larger, or delete old artifacts and logs.",
        "home",
    ),
    Alert(
        "InodesEnd",
        "modelyard_disk_free_inodes < 10000",
        "5m",
        "page",
        "The disk of the home has room for few more files.",
        "When there is none, nothing is predicted.",
        "Delete small files on that disk.",
        "home",
    ),
    Alert(
        "OpenFilesEnd",
        "modelyard_process_open_files / modelyard_process_open_files_limit > 0.8",
        "5m",
        "ticket",
        "A process has nearly as many open files as it may have.",
        "At the limit, new clients are turned away.",
        "Raise `LimitNOFILE` of the service.",
        "open-files",
    ),
    Alert(
        "CertificateEnds",
        "modelyard_grpc_certificate_ends_at_seconds - time() < 14 * 86400",
        "0m",
        "ticket",
        "The certificate of gRPC ends within 14 days.",
        "Then no client can connect by gRPC.",
        "Renew it; gateways read the new file by themselves.",
        "certificates",
    ),
    Alert(
        "NobodyWorks",
        "time() - modelyard_task_succeeded_at_seconds"
        '{task="inference.tasks.sweep_jobs"} > 120',
        "1m",
        "page",
        "No background task has succeeded for two minutes.",
        "Jobs stand still, and MLflow is not read.",
        "Look at worker, beat and broker.",
        "background-work",
    ),
    Alert(
        "MessagesWait",
        "modelyard_waiting_messages > 100",
        "5m",
        "ticket",
        "Messages wait that no worker takes.",
        "Jobs start late.",
        "Look whether the worker runs, and at the same broker.",
        "broker",
    ),
    Alert(
        "TasksFail",
        'sum by (task) (increase(modelyard_tasks_total{outcome="failed"}[15m])) > 2',
        "5m",
        "ticket",
        "A background task fails again and again.",
        "What it does is not done: jobs, artifacts, roll-ups, mails.",
        "Read the task's exception in the worker's log.",
        "background-work",
    ),
    Alert(
        "JobsWait",
        'modelyard_job_oldest_age_seconds{state="pending"} > 900',
        "5m",
        "ticket",
        "A job has waited a quarter of an hour for a worker.",
        "Its customer waits.",
        "Look whether workers run; start more of them.",
        "background-work",
    ),
    Alert(
        "JobsWithoutEngine",
        'modelyard_jobs{state="waiting"} > 0',
        "15m",
        "ticket",
        "A job waits because no engine takes its rows.",
        "Its customer waits.",
        "Look whether its version is loaded.",
        "engines",
    ),
    Alert(
        "RolloutPaused",
        'modelyard_rollouts{state=~"paused|approval"} > 0',
        "10m",
        "ticket",
        "A rollout waits for a person.",
        "Its version keeps its share of the calls, and bad answers roll nothing back.",
        "Its page in the admin says why it waits: resume, promote or roll it back.",
        "a-rollout-waits",
    ),
    Alert(
        "RegistryOld",
        "modelyard_registry_sync_age_seconds > 900",
        "5m",
        "ticket",
        "MLflow was not read for a quarter of an hour.",
        "New versions and moved aliases do not come.",
        "The admin's registry sync has the reason.",
        "mlflow",
    ),
    Alert(
        "MailsFail",
        'increase(modelyard_mails_total{outcome="failed"}[30m]) > 0',
        "0m",
        "ticket",
        "Mails cannot be sent.",
        "Customers do not learn that quotas end, and nobody can set a password.",
        "Check `EMAIL_URL` and the mail server.",
        "mail",
    ),
    Alert(
        "SiteFails",
        'sum(rate(modelyard_site_requests_total{status=~"5.."}[5m])) '
        "/ sum(rate(modelyard_site_requests_total[5m])) > 0.05",
        "5m",
        "page",
        "More than 5 % of the site's answers are failures.",
        "Pages, jobs and uploads fail; predictions go on.",
        "Read `request` with status 500 in the site's log.",
        "a-page-shows",
    ),
    Alert(
        "VersionsMixed",
        "count(count by (version) (modelyard_build_info)) > 1",
        "1h",
        "ticket",
        "Processes run different versions of Modelyard.",
        "An upgrade has stopped half way.",
        "Restart those that run the old one.",
        "settings",
    ),
    *(alert for objective in OBJECTIVES for alert in objective.alerts()),
)
