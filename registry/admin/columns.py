"""Render values of models, versions and routes for admin pages."""

from typing import Any

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from registry.models import Alias, ModelVersion, Route
from registry.routes import traffic_of

_SHOWN_METRICS = 3
_LONGEST_PROBLEM = 120
_LONGEST_SENTENCE = 200
_TRACE = "Traceback (most recent call last)"
_NOTHING = SafeString("–")
_ARTIFACTS = {
    ModelVersion.ArtifactState.READY: ("cached", "success"),
    ModelVersion.ArtifactState.REMOTE: ("in MLflow", "info"),
    ModelVersion.ArtifactState.FAILED: ("not fetched", "danger"),
}


def label(text: str, kind: str = "") -> SafeString:
    """Render unfold's label; unfold's own decorator works in lists only."""
    context = {"text": text, "type": kind}
    return SafeString(render_to_string("unfold/helpers/label.html", context))


def in_short(text: str, *, longest: int = _LONGEST_SENTENCE) -> str:
    """Return what a text says in one line, without the stack trace that follows."""
    lines = text.strip().split("\n")
    line = lines[0].strip()
    if _TRACE in line:
        # The last line names the exception.
        line = line.partition(_TRACE)[0] + lines[-1].strip()
    return str(Truncator(line).chars(longest))


def folded(text: str) -> SafeString:
    """Render a text in one line; the whole text is one click away."""
    short = in_short(text)
    if short == text.strip():
        return format_html("{}", short)
    context = {"short": short, "text": text.strip()}
    return SafeString(render_to_string("registry/folded.html", context))


def version_link(version: ModelVersion | None, *, suffix: str = "") -> SafeString:
    if version is None:
        return _NOTHING
    return format_html(
        '<a class="text-primary-600 dark:text-primary-500 whitespace-nowrap" '
        'href="{}">v{}</a>{}',
        reverse("admin:registry_modelversion_change", args=[version.pk]),
        version.version,
        suffix,
    )


def metrics(version: ModelVersion, *, shown: int = _SHOWN_METRICS) -> SafeString:
    """Render the first metrics by name; the title attribute holds all."""
    pairs = [(name, _number(value)) for name, value in sorted(version.metrics.items())]
    if not pairs:
        return _NOTHING
    more = f" +{len(pairs) - shown}" if len(pairs) > shown else ""
    return format_html(
        '<span title="{}">{}{}</span>',
        ", ".join(f"{name} {value}" for name, value in pairs),
        format_html_join(
            " ",
            '<span class="whitespace-nowrap mr-1">{} <b>{}</b></span>',
            pairs[:shown],
        ),
        more,
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "not finite"


def split(route: Route | None) -> SafeString:
    """Render the desired shares of default and canaries as one bar with its text."""
    if route is None:
        return _NOTHING
    return SafeString(render_to_string("registry/split.html", {"route": route}))


def split_text(route: Any) -> str:
    """Describe the shares in words; `route` may be a record of the history."""
    return traffic_of(route).in_words()


def aliases(version: ModelVersion) -> SafeString:
    found = [label(alias.name, "info") for alias in version.aliases.all()]
    return _beside(found)


def alias_place(route: Route) -> SafeString | None:
    """Tell where the last sync saw the route's alias, and where it is still to be."""
    if not route.alias:
        return None
    found = Alias.objects.filter(
        registered_model_id=route.registered_model_id, name=route.alias
    )
    alias = found.select_related("version").first()
    state = getattr(route, "alias_state", None)
    waits = ""
    if state is not None and state.wanted_version is not None:
        waits = f"; it has still to be moved to v{state.wanted_version}"
    if alias is None:
        return format_html("nowhere, at the last sync{}", waits)
    return format_html("{}, at the last sync{}", version_link(alias.version), waits)


def roles(version: ModelVersion) -> SafeString:
    """Render the version's roles in its model's route, which should be selected."""
    found = []
    route = getattr(version.registered_model, "route", None)
    if route is not None and route.default_version_id == version.pk:
        found.append(label("default", "success"))
    weight = None if route is None else route.weight_of(version.pk)
    if weight is not None:
        found.append(label(f"canary {weight} %", "warning"))
    if version.published:
        found.append(label("published", "info"))
    return _beside(found)


def artifact(version: ModelVersion) -> SafeString:
    return label(*_ARTIFACTS[ModelVersion.ArtifactState(version.artifact_state)])


def _beside(labels: list[SafeString]) -> SafeString:
    return format_html_join(" ", "{}", ((each,) for each in labels)) or _NOTHING


def problems(of: ModelVersion | Route) -> SafeString:
    """Render all reasons why a version, or a route's versions, cannot be served."""
    sentences = _problems(of)
    if not sentences:
        return _NOTHING
    return format_html(
        '<div class="whitespace-normal text-red-700 dark:text-red-400">{}</div>',
        format_html_join("", "<div>{}</div>", ((folded(each),) for each in sentences)),
    )


def first_problem(of: ModelVersion | Route) -> SafeString:
    """Render the first problem, for lists; the title attribute holds all."""
    sentences = _problems(of)
    if not sentences:
        return _NOTHING
    more = f" +{len(sentences) - 1}" if len(sentences) > 1 else ""
    return format_html(
        '<div class="whitespace-normal min-w-52 max-w-sm text-red-700 '
        'dark:text-red-400" title="{}">{}{}</div>',
        " ".join(in_short(each) for each in sentences),
        in_short(sentences[0], longest=_LONGEST_PROBLEM),
        more,
    )


def _problems(of: ModelVersion | Route) -> list[str]:
    if isinstance(of, ModelVersion):
        return _problems_of_version(of)
    versions = [getattr(of, name) for name in Route.VERSIONS]
    state = getattr(of, "alias_state", None)
    of_alias = [f"Alias {of.alias}: {state.problem}"] if state and state.problem else []
    return of_alias + [
        f"v{version.version}: {sentence}"
        for version in dict.fromkeys(versions)
        if version is not None
        for sentence in _problems_of_version(version)
    ]


def _problems_of_version(version: ModelVersion) -> list[str]:
    sentences = list(version.metadata_errors)
    if version.artifact_error:
        sentences.append(version.artifact_error)
    if version.serving_problem and not any(
        sentence in version.serving_problem for sentence in sentences
    ):
        sentences.append(version.serving_problem)
    if version.missing_since:
        sentences.append(f"Gone from MLflow {naturaltime(version.missing_since)}.")
    return sentences
