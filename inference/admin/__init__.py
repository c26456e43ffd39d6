"""Admin pages of engines, served versions, jobs and uploads."""

from inference.admin.jobs import PredictionJobAdmin
from inference.admin.serving import (
    EngineAdmin,
    LoadedVersionAdmin,
    ServingRouteAdmin,
    SnapshotStateAdmin,
)
from inference.admin.uploads import UploadAdmin

__all__ = [
    "EngineAdmin",
    "LoadedVersionAdmin",
    "PredictionJobAdmin",
    "ServingRouteAdmin",
    "SnapshotStateAdmin",
    "UploadAdmin",
]
