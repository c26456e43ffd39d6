"""Show a version's columns and its own rules in admin forms."""

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from registry.mlflow.types import Json
from registry.models import ModelVersion
from registry.rules import column_rules

# Longer tables are cut: rules of more columns are better edited in a file.
_MAX_COLUMNS = 100
_ORDER = ("min", "max", "enum", "max_length", "optional")


def own_rules(version: ModelVersion | None) -> SafeString:
    """Return a table of the columns with types and the version's own rules."""
    if version is None:
        return SafeString("–")
    columns = column_rules.columns_of(version.metadata, version.signature)
    if not columns:
        return SafeString("Its inputs are tensors without column names; no rules.")
    rules = version.metadata.get("rules", {})
    rows = format_html_join(
        "",
        "<tr><td class='pr-4'><code>{}</code></td><td class='pr-4'>{}</td>"
        "<td class='pr-4'>{}</td><td>{}</td></tr>",
        (
            (
                column.name,
                column.type,
                "required" if column.required else "optional",
                _sentence(rules.get(column.name, {})),
            )
            for column in columns[:_MAX_COLUMNS]
        ),
    )
    left_out = len(columns) - _MAX_COLUMNS
    more = f"and {left_out} more columns" if left_out > 0 else ""
    return format_html(
        "<details><summary class='cursor-pointer'>{} column{}</summary>"
        "<div class='overflow-x-auto'><table>{}</table>{}</div></details>",
        len(columns),
        "" if len(columns) == 1 else "s",
        rows,
        more,
    )


def _sentence(rule: Json) -> str:
    """Return a rule as people type it, without the outer brackets."""
    names = sorted(rule, key=lambda name: (*_ORDER, name).index(name))
    parts = [f"{name} {_value(rule[name])}" for name in names]
    return ", ".join(parts) or "no rule"


def _value(value: Json) -> str:
    if isinstance(value, list):
        return " | ".join(str(item) for item in value)
    return "yes" if value is True else str(value)
