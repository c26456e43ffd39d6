"""Find the metrics and labels that a query names."""

import re
import shutil

import pytest

from config.monitoring.alerts import RULES
from inference.metrics.table import METRICS

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)

_SERIES = re.compile(r"\b(modelyard[\w:]+)(?:\{([^}]*)\})?")
_ENDINGS = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
_LABELS = {
    measure.full_name + ending: {*measure.labels, "le"}
    for measure in METRICS.values()
    for ending in _ENDINGS[measure.kind]
} | {rule.name: None for rule in RULES}


def unknown(query):
    """Return the metrics and labels of a query that nobody counts."""
    found = []
    for name, matchers in _SERIES.findall(query):
        if name not in _LABELS:
            found.append(name)
            continue
        labels = _LABELS[name]
        named = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
        if labels is not None:
            found += [f"{name}: {label}" for label in named if label not in labels]
    return found
