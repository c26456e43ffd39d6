"""The database rows of engines, served versions, jobs and uploads."""

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
