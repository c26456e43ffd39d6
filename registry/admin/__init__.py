"""Show data scientists their models, versions and routes in the admin."""

from registry.admin.models import RegisteredModelAdmin
from registry.admin.routes import RouteAdmin
from registry.admin.versions import ModelVersionAdmin

__all__ = ["ModelVersionAdmin", "RegisteredModelAdmin", "RouteAdmin"]
