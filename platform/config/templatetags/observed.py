"""Show a canary's answers in templates of the registry, which does not know usage."""

from django import template
from django.utils import timezone

from config.pages import rollouts
from config.pages.rollouts import CanaryRow
from registry.models import Route

register = template.Library()


@register.simple_tag
def canary_of(route: Route | None) -> list[CanaryRow]:
    """Return the canary's answers of the last hour; [] if the route has no canary."""
    if route is None or route.canary_version_id is None:
        return []
    return rollouts.canaries(timezone.now(), model=route.registered_model.name)
