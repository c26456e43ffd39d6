"""Show canaries, rollouts and feedback in templates of apps that know them not."""

from typing import Any

from django import template
from django.conf import settings
from django.utils import timezone
from django.utils.safestring import SafeString

from config.pages import rollouts, shadows
from config.pages.rollouts import CanaryRow
from config.pages.shadows import ShadowRow
from inference.feedback import reading
from inference.models import Rollout, ShadowExample
from registry.models import ModelVersion, RegisteredModel, Route

register = template.Library()

Context = dict[str, Any]


@register.simple_tag
def canary_of(route: Route | None) -> list[CanaryRow]:
    """Return the canaries' answers of the last hour; [] if the route has none."""
    if route is None or route.canary_version_id is None:
        return []
    return rollouts.canaries(timezone.now(), model=route.registered_model.name)


@register.simple_tag
def rollouts_of(route: Route | None) -> list[Rollout]:
    """Return the newest rollouts of the route's model."""
    if route is None or route.pk is None:
        return []
    model = route.registered_model_id
    return list(Rollout.objects.filter(registered_model=model).listed())


@register.simple_tag
def shadows_of(subject: Route | ModelVersion | None) -> list[ShadowRow]:
    """Return what the shadows of a route answered, or a version as a shadow."""
    if subject is None or subject.pk is None:
        return []
    return shadows.of(subject)


@register.simple_tag
def shadow_examples_of(subject: Route | ModelVersion | None) -> list[ShadowExample]:
    """Return calls that those shadows answered otherwise."""
    if subject is None or subject.pk is None:
        return []
    return shadows.examples_of(subject)


@register.inclusion_tag("inference/feedback.html")
def feedback_of_route(route: Route | None) -> Context:
    """Show what callers said of a route's versions."""
    if route is None or route.pk is None:
        return {}
    default = route.default_version
    columns = [(f"Default v{default.version}", default.version)]
    columns += [
        (f"Canary v{canary.version.version}", canary.version.version)
        for canary in route.canaries
    ]
    return _feedback(route.registered_model, columns)


@register.inclusion_tag("inference/feedback.html")
def feedback_of_version(version: ModelVersion | None, default: Any) -> Context:
    """Show what callers said of a version, beside the default if that is another."""
    if version is None:
        return {}
    columns = [(f"v{version.version}", version.version)]
    if default:
        columns.append((f"Default v{default.version}", default.version))
    return _feedback(version.registered_model, columns)


def _feedback(model: RegisteredModel, columns: list[tuple[str, int]]) -> Context:
    today = timezone.now().date()
    return {
        "said": reading.of_versions(model.name, columns, today=today),
        "address": settings.MODELYARD_PUBLIC_URL.rstrip("/"),
    }


# Unfold loads all libraries while its admin is imported, so ours cannot import one.
@register.filter
def rollout_label(rollout: Rollout) -> SafeString:
    """Return a rollout's state in its colour."""
    from inference.admin.rollouts.pages import state_label

    return state_label(rollout)
