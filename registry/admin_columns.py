"""How rows of the registry look in lists and forms of the admin."""

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from registry.models import ModelVersion, Route

_SHOWN_METRICS = 3
ARTIFACT_LABELS = {
    "in the local cache": "success",
    "in MLflow only": "info",
    "could not be fetched": "danger",
}


def version_link(version: ModelVersion | None, *, suffix: str = "") -> SafeString:
    if version is None:
        return SafeString("–")
    return format_html(
        '<a class="text-primary-600 dark:text-primary-500 whitespace-nowrap" '
        'href="{}">v{}</a>{}',
        reverse("admin:registry_modelversion_change", args=[version.pk]),
        version.version,
        suffix,
    )


def metrics(version: ModelVersion, *, shown: int = _SHOWN_METRICS) -> SafeString:
    """List the first metrics by name, all of them in the title."""
    pairs = [(name, _number(value)) for name, value in sorted(version.metrics.items())]
    if not pairs:
        return SafeString("–")
    more = f" +{len(pairs) - shown}" if len(pairs) > shown else ""
    return format_html(
        '<span title="{}">{}{}</span>',
        ", ".join(f"{name} {value}" for name, value in pairs),
        format_html_join(
            " · ",
            '<span class="whitespace-nowrap">{} <b>{}</b></span>',
            pairs[:shown],
        ),
        more,
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "not finite"


def split(route: Route | None) -> SafeString:
    """Draw the desired shares of default and canary as one bar with its text."""
    if route is None:
        return SafeString("–")
    return SafeString(render_to_string("registry/split.html", {"route": route}))


def aliases(version: ModelVersion) -> list[str]:
    return [alias.name for alias in version.aliases.all()]


def roles(version: ModelVersion) -> list[str]:
    """Name the roles that the desired routes give the version; needs prefetching."""
    found = ["default" for _ in version.default_in.all()]
    found += [
        f"canary {route.canary_weight_percent} %" for route in version.canary_in.all()
    ]
    if not found and version.published:
        found.append("published")
    return found


def problems(version: ModelVersion) -> SafeString:
    """List everything that keeps the version from being served."""
    sentences = list(version.metadata_errors)
    if version.artifact_error:
        sentences.append(version.artifact_error)
    if version.missing_since:
        sentences.append(f"Gone from MLflow {naturaltime(version.missing_since)}.")
    if not sentences:
        return SafeString("–")
    return format_html_join(
        SafeString("<br>"),
        '<span class="text-red-700 dark:text-red-400">{}</span>',
        ((sentence,) for sentence in sentences),
    )
