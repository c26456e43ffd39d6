"""Show the states of versions, in the same words and colours on every page."""

from collections.abc import Iterable

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from inference.conditions.reading import VersionStates
from inference.conditions.states import ServingState, StateReport
from registry.admin import columns
from registry.models import ModelVersion

COLOURS = {
    ServingState.SERVING_DEFAULT: "success",
    ServingState.SERVING_CANARY: "success",
    ServingState.READY: "info",
    ServingState.LOADING: "info",
    ServingState.WAITING: "warning",
    ServingState.NO_MEMORY: "warning",
    ServingState.QUARANTINED: "danger",
    ServingState.FAILED: "danger",
    ServingState.MISFIT: "danger",
    ServingState.UNTRUSTED: "danger",
}


def label(report: StateReport) -> SafeString:
    return columns.label(report.state, COLOURS.get(report.state, ""))


def label_and_why(version: ModelVersion, report: StateReport) -> SafeString:
    """Render the state, with a link to the reason on the version's page."""
    if not report.reason:
        return label(report)
    return format_html(
        '{} <a class="text-primary-600 dark:text-primary-500 underline" href="{}#why" '
        'aria-label="Why is {} {}?">Why?</a>',
        label(report),
        reverse("admin:registry_modelversion_change", args=[version.pk]),
        version,
        report.state,
    )


def with_states(versions: Iterable[ModelVersion]) -> None:
    """Read the states of these versions at once, and keep them on the rows."""
    versions = list(versions)
    states = VersionStates([version.registered_model.name for version in versions])
    for version in versions:
        version.state_report = states.of(version)  # type: ignore[attr-defined]
