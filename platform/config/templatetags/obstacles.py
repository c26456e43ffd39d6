"""Say in the registry's dialogs, which know no engines, why a version cannot answer."""

from django import template

from inference.conditions.states import TROUBLES, ServingState, StateReport
from registry.models import ModelVersion

register = template.Library()


@register.simple_tag
def obstacle(version: ModelVersion) -> StateReport | None:
    """Return the state that keeps a version from answering; None: it could, or may."""
    # Deferred, as unfold loads all libraries while its admin is imported.
    from inference.conditions.reading import VersionStates
    from registry.admin import columns

    report = VersionStates([version.registered_model.name]).if_called(version)
    if report.state not in TROUBLES and report.state is not ServingState.NO_MEMORY:
        return None
    return StateReport(report.state, columns.in_short(report.reason))
