"""Admin pages of hosts, engines, environments, served versions, jobs and uploads."""

from inference.admin.environments import ModelEnvironmentAdmin
from inference.admin.hosts import HostAdmin
from inference.admin.jobs import PredictionJobAdmin
from inference.admin.served_routes import ServedModelAdmin, ServedRouteAdmin
from inference.admin.served_versions import ServedVersionAdmin
from inference.admin.serving import (
    EngineAdmin,
    LoadedVersionAdmin,
    ServingRouteAdmin,
    SnapshotStateAdmin,
)
from inference.admin.uploads import UploadAdmin

__all__ = [
    "EngineAdmin",
    "HostAdmin",
    "LoadedVersionAdmin",
    "ModelEnvironmentAdmin",
    "PredictionJobAdmin",
    "ServedModelAdmin",
    "ServedRouteAdmin",
    "ServedVersionAdmin",
    "ServingRouteAdmin",
    "SnapshotStateAdmin",
    "UploadAdmin",
]
