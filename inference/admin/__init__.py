"""Admin pages of hosts, engines, environments, served versions, jobs and uploads."""

from inference.admin.endings.pages import DeprecationAdmin
from inference.admin.environments import ModelEnvironmentAdmin
from inference.admin.hosts import HostAdmin
from inference.admin.jobs import PredictionJobAdmin
from inference.admin.rollouts.pages import RolloutAdmin
from inference.admin.served_routes import ServedModelAdmin, ServedRouteAdmin
from inference.admin.served_versions import ServedVersionAdmin
from inference.admin.serving import EngineAdmin
from inference.admin.uploads import UploadAdmin
from inference.admin.version_events import VersionEventAdmin

__all__ = [
    "DeprecationAdmin",
    "EngineAdmin",
    "HostAdmin",
    "ModelEnvironmentAdmin",
    "PredictionJobAdmin",
    "RolloutAdmin",
    "ServedModelAdmin",
    "ServedRouteAdmin",
    "ServedVersionAdmin",
    "UploadAdmin",
    "VersionEventAdmin",
]
