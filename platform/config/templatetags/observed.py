"""What was observed of a route, for templates of the registry: it knows no usage."""

from django import template
from django.utils import timezone

from config.pages import rollouts
from config.pages.rollouts import CanaryRow
from registry.models import Route

register = template.Library()


@register.simple_tag
def canary_of(route: Route | None) -> list[CanaryRow]:
    """Return what the route's canary answered in the last hour; empty without one."""
    if route is None or route.canary_version_id is None:
        return []
    return rollouts.canaries(timezone.now(), model=route.registered_model.name)
