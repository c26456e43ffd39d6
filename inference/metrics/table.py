"""List every metric: its name, kind, labels, source and meaning.

What counts, what writes Prometheus text, the dashboards and the alerts use these names;
`docs/monitoring.md` shows them. Names stand here without `modelyard_`, and those of
counters without `_total`.

Labels bound the number of series: `gateway`, `process`, `engine` and `bound` are as
many as the installation runs; `model`, `version` and `variant` are those that gateways
serve, never words of a caller; `customer` is one of the `MOST_CUSTOMERS` busiest. The
values of all others are fixed in code.
"""

from typing import Literal

import msgspec

PREFIX = "modelyard_"
MOST_CUSTOMERS = 20
# Usage of this time counts as recent.
RECENT_S = 300
# From half a millisecond to a minute. With `+Inf`, `_sum` and `_count`, 19 lines.
SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0, 16384.0)

Kind = Literal["counter", "gauge", "histogram"]
# Who counts it. `gateways`: each gateway. `engines`: each engine, which gateways ask.
# `host` and `ledger`: the reports of host and controller. `processes`: each process, in
# a report of its own. `facts`: the controller's process, which asks the database.
Source = Literal["gateways", "engines", "host", "ledger", "processes", "facts"]


class Measure(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    source: Source
    labels: tuple[str, ...]
    # The HELP line.
    about: str
    # Upper limits of a histogram's buckets.
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


_CALL = ("gateway", "model", "version", "variant", "operation", "status")
_VERSION = ("engine", "model", "version")

_GROUPS: tuple[tuple[Source, Kind, tuple[str, ...], dict[str, str]], ...] = (
    (
        "gateways",
        "counter",
        _CALL,
        {
            "requests": "Answered calls.",
            "rows": "Rows predicted.",
            "compute_seconds": "Time on the device.",
            "shap_samples": "Forward passes spent on explanations.",
        },
    ),
    (
        "gateways",
        "histogram",
        _CALL,
        {
            "request_duration_seconds": "Time to the answer.",
            "request_rows": "Rows per call.",
        },
    ),
    (
        "gateways",
        "counter",
        ("gateway", "model", "version", "operation", "code"),
        {"errors": "Calls answered with an error, by its code."},
    ),
    (
        "gateways",
        "counter",
        ("gateway",),
        {
            "unauthenticated_requests": "Calls without a valid key.",
            "unrecorded_requests": (
                "Calls refused because the spool could not be written."
            ),
            "abandoned_requests": "Calls whose client left before the answer.",
            "cache_hits": "Predictions given from the cache.",
            "cache_misses": "Predictions that the cache did not hold.",
            "cache_evictions": "Predictions dropped from the cache to make room.",
            "connections_cut_off": "Clients cut off because they read too slowly.",
        },
    ),
    (
        "gateways",
        "counter",
        ("gateway", "model", "version", "outcome"),
        {
            "shadow_calls": (
                "Copies of calls to a shadow: answered the same, changed or failed; or "
                "dropped for the reason that `outcome` names."
            )
        },
    ),
    (
        "gateways",
        "counter",
        ("gateway", "model", "version"),
        {
            "shadow_rows": "Rows whose answers by shadow and default were compared.",
            "shadow_distance": (
                "How far apart those answers were, from 0 to 1 for each row."
            ),
            "shadow_compute_seconds": "Time on the device spent on copies of calls.",
        },
    ),
    (
        "gateways",
        "counter",
        ("gateway", "reason"),
        {
            "lease_failures": (
                "Requests for units of a quota that the site refused or did not answer."
            )
        },
    ),
    (
        "gateways",
        "counter",
        ("gateway", "bound"),
        {"bound_refusals": "Requests without room in a bound that customers share."},
    ),
    (
        "gateways",
        "gauge",
        ("gateway", "bound"),
        {"bound_used": "What is used of a bound that customers share."},
    ),
    (
        "gateways",
        "gauge",
        ("gateway",),
        {
            "cache_entries": "Predictions in the cache.",
            "cache_bytes": "Memory of the cache.",
            "gateway_up": "1 for a gateway that answers.",
        },
    ),
    (
        "gateways",
        "gauge",
        (),
        {
            "ready": "1 while every gateway can answer.",
            "snapshot_sequence": "Number of the snapshot that gateways answer from.",
            "snapshot_age_seconds": "Time since the snapshot was published.",
            "spool_failing": "1 while usage events cannot be written.",
            "spool_bytes": "Usage events on disk, also those already counted.",
            "spool_limit_bytes": "Gateways refuse calls at this size of the spool.",
            "leases_failing": "1 while the site lends no units of quotas.",
            "overdrawn_units": "Units spent beyond leases.",
            "keys_backing_off": (
                "Keys closed for a while because they called on when refused."
            ),
            "grpc_certificate_ends_at_seconds": (
                "When gRPC's certificate ends, Unix time."
            ),
            "disk_free_bytes": "Free bytes on the disk of the home.",
            "disk_bytes": "Size of the disk of the home.",
            "disk_free_inodes": "Files for which the disk of the home has room.",
        },
    ),
    (
        "gateways",
        "gauge",
        ("engine",),
        {"engine_up": "1 for an engine that answers."},
    ),
    (
        "engines",
        "counter",
        ("engine",),
        {
            "engine_batches": "Forward passes.",
            "engine_inline_batches": (
                "Forward passes without a thread, since they are short."
            ),
            "engine_rows": "Rows predicted.",
            "engine_job_rows": "Rows predicted for jobs, which give way to others.",
            "engine_late": (
                "Requests dropped because their deadline passed while they waited."
            ),
            "engine_left": "Requests dropped because their caller left.",
            "engine_model_errors": "Forward passes that failed.",
            "engine_explanations": "Explanations accepted.",
            "engine_streams": "Streams begun.",
            "engine_stream_chunks": "Chunks sent in streams.",
            "engine_evictions": "Versions that left the memory for others.",
            "engine_demand_loads": "Calls that made a version load again.",
            "engine_malformed_frames": (
                "Connections closed because of a malformed frame."
            ),
            "engine_connections": "Connections accepted.",
            "engine_pieces": (
                "Parts of requests that were too long for one forward pass."
            ),
            "engine_dropped_between_pieces": (
                "Requests dropped after some of their parts had run."
            ),
            "engine_memory_halvings": (
                "Batches run as two halves because memory was short."
            ),
            "engine_graphs_captured": "Sizes of batches that got a graph of their own.",
            "engine_graph_fallbacks": (
                "Versions that run without graphs for some of their sizes."
            ),
            "engine_graph_batches": "Forward passes through a graph.",
            "engine_eager_batches": "Forward passes of a size without a graph.",
            "engine_filled_rows": "Rows computed only to fill up a batch.",
            "engine_busy_seconds": "Time of the device.",
            "engine_cpu_seconds": "Processor time of the process.",
        },
    ),
    (
        "engines",
        "counter",
        ("engine", "bound"),
        {"engine_refused": "Requests refused, by the bound that was reached."},
    ),
    (
        "engines",
        "histogram",
        ("engine",),
        {
            "engine_batch_rows": "Rows in a forward pass.",
            "engine_queue_seconds": "Time that a request waited for its forward pass.",
        },
    ),
    (
        "engines",
        "gauge",
        ("engine",),
        {
            "engine_unanswered": "Requests accepted and not answered yet.",
            "engine_running_streams": "Streams running.",
            "engine_queued_rows": "Rows that wait.",
            "engine_queued_bytes": "Bytes of input that wait.",
            "engine_versions_memory_bytes": "Memory of the loaded versions.",
            "engine_memory_budget_bytes": "Memory that loaded versions may take.",
            "engine_memory_bytes": "Memory of the process.",
            "engine_open_files": "Files and sockets that the process has open.",
        },
    ),
    (
        "engines",
        "gauge",
        ("engine", "kind"),
        {
            "engine_device_memory_bytes": (
                "Memory of the device: all, used by anybody, and reserved by this "
                "engine."
            )
        },
    ),
    (
        "engines",
        "counter",
        _VERSION,
        {
            "version_calls": "Requests answered by a version since it was loaded.",
            "version_rows": "Rows answered by a version since it was loaded.",
            "version_batches": "Forward passes of a version since it was loaded.",
        },
    ),
    (
        "engines",
        "gauge",
        _VERSION,
        {
            "version_queued_rows": "Rows that wait for a version.",
            "version_queued_bytes": "Bytes of input that wait for a version.",
            "version_memory_bytes": (
                "Memory of a version, measured when it was loaded."
            ),
        },
    ),
    (
        "engines",
        "gauge",
        (*_VERSION, "state"),
        {"version_state": "1 for the state a version is in."},
    ),
    (
        "host",
        "gauge",
        (),
        {"host_report_age_seconds": "Time since the host looked at its processes."},
    ),
    (
        "host",
        "gauge",
        ("engine",),
        {
            "process_running": "1 for an engine process that runs.",
            "process_memory_bytes": "Memory of an engine process beyond an empty one.",
        },
    ),
    (
        "host",
        "gauge",
        ("model", "version"),
        {
            "process_deaths_today": (
                "Deaths of processes while a version ran, in 24 hours."
            ),
            "version_quarantined": (
                "1 for a version that its host does not start any more."
            ),
        },
    ),
    (
        "ledger",
        "gauge",
        (),
        {
            "ledger_report_age_seconds": (
                "Time since the controller looked at the ledger."
            ),
            "usage_roll_up_lag_seconds": (
                "How long the oldest hour waits to be rolled up."
            ),
        },
    ),
    (
        "facts",
        "gauge",
        (),
        {
            "facts_age_seconds": (
                "Time since the controller's process asked database and broker."
            ),
            "waiting_messages": "Messages that no worker has taken yet.",
            "registry_sync_age_seconds": (
                "Time since MLflow was last read with success."
            ),
            "registry_sync_failing": "1 if the last read of MLflow failed.",
            "spool_uncounted_bytes": (
                "Usage events on disk that the controller has not counted."
            ),
        },
    ),
    (
        "facts",
        "gauge",
        ("dependency",),
        {"dependency_up": "1 for a database, broker or cache that answers."},
    ),
    (
        "facts",
        "gauge",
        ("state",),
        {
            "jobs": "Jobs that have not ended.",
            "job_oldest_age_seconds": (
                "Time since the oldest of these jobs was submitted."
            ),
            "jobs_ended_today": "Jobs that ended, in 24 hours.",
            "rollouts": "Rollouts that have not ended.",
        },
    ),
    (
        "facts",
        "gauge",
        ("customer", "status"),
        {
            "customer_recent_calls": (
                f"Calls of the {MOST_CUSTOMERS} busiest customers in the last five "
                "minutes, by class of status."
            )
        },
    ),
    (
        "facts",
        "gauge",
        ("customer",),
        {"customer_recent_rows": "Rows of the same customers, likewise."},
    ),
    (
        "processes",
        "gauge",
        ("process",),
        {
            "process_up": "1 for a process that reports.",
            "process_resident_bytes": "Memory of a process.",
            "process_open_files": "Files and sockets that a process has open.",
            "process_open_files_limit": "Files and sockets that it may have open.",
            "process_started_at_seconds": "When a process started, Unix time.",
        },
    ),
    (
        "processes",
        "counter",
        ("process",),
        {"process_cpu_seconds": "Processor time of a process."},
    ),
    (
        "processes",
        "gauge",
        ("process", "version", "python"),
        {"build_info": "1; the labels say what a process runs."},
    ),
    (
        "processes",
        "counter",
        ("process", "view", "status"),
        {"site_requests": "Requests that the site answered."},
    ),
    (
        "processes",
        "histogram",
        ("process", "view"),
        {"site_request_duration_seconds": "Time until the site began its answer."},
    ),
    (
        "processes",
        "counter",
        ("process", "result"),
        {"feedback": "Instances that callers said something of, by what became of it."},
    ),
    (
        "processes",
        "counter",
        ("process", "task", "outcome"),
        {"tasks": "Background tasks that ended."},
    ),
    (
        "processes",
        "histogram",
        ("process", "task"),
        {"task_duration_seconds": "Time of background tasks."},
    ),
    (
        "processes",
        "gauge",
        ("process", "task"),
        {
            "task_succeeded_at_seconds": (
                "When a background task last succeeded, Unix time."
            )
        },
    ),
    (
        "processes",
        "counter",
        ("process", "outcome"),
        {"mails": "Mails that were sent, or failed."},
    ),
    (
        "processes",
        "counter",
        ("process", "kind"),
        {
            "snapshots_published": (
                "Whole snapshots and changes of them that the controller published."
            )
        },
    ),
    (
        "processes",
        "counter",
        ("process", "action", "guard"),
        {
            "rollout_moves": (
                "What rollouts did, by themselves for a guard or by a person."
            )
        },
    ),
    (
        "processes",
        "counter",
        ("process", "step"),
        {
            "controller_step_failures": (
                "Steps of the controller that failed, such as publish."
            )
        },
    ),
)
_ROW_HISTOGRAMS = ("request_rows", "engine_batch_rows")

METRICS = {
    name: Measure(
        name,
        kind,
        source,
        labels,
        about,
        () if kind != "histogram" else ROWS if name in _ROW_HISTOGRAMS else SECONDS,
    )
    for source, kind, labels, group in _GROUPS
    for name, about in group.items()
}
