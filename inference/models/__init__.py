"""What engines run and gateways may serve, jobs, and uploaded files: the rows."""

from inference.models.jobs import JobChunk, JobTotals, JobTurn, PredictionJob
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
    "JobChunk",
    "JobTotals",
    "JobTurn",
    "LoadedVersion",
    "PredictionJob",
    "ServingRoute",
    "SnapshotChange",
    "SnapshotState",
    "Upload",
]
