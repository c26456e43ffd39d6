"""Admin pages of models, versions and routes, for data scientists."""

from registry.admin.models import RegisteredModelAdmin
from registry.admin.rollout_plans import RolloutPlanAdmin
from registry.admin.routes import RouteAdmin
from registry.admin.versions import ModelVersionAdmin

__all__ = [
    "ModelVersionAdmin",
    "RegisteredModelAdmin",
    "RolloutPlanAdmin",
    "RouteAdmin",
]
