"""The database rows of hosts, engines, served versions, environments, jobs, uploads."""

from inference.models.jobs import JobChunk, JobTotals, JobTurn, PredictionJob
from inference.models.processes import (
    Host,
    ModelEnvironment,
    VersionCondition,
    VersionEvent,
)
from inference.models.serving import (
    ControllerLease,
    DatabaseHome,
    Engine,
    LoadedVersion,
    ServingRoute,
    SnapshotChange,
    SnapshotState,
)
from inference.models.uploads import Upload

__all__ = [
    "ControllerLease",
    "DatabaseHome",
    "Engine",
    "Host",
    "JobChunk",
    "JobTotals",
    "JobTurn",
    "LoadedVersion",
    "ModelEnvironment",
    "PredictionJob",
    "ServingRoute",
    "SnapshotChange",
    "SnapshotState",
    "Upload",
    "VersionCondition",
    "VersionEvent",
]
