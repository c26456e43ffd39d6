"""Write values of a row's history in words."""

import re

from django import template

register = template.Library()
_DELETED = re.compile(r"Deleted (.+) \(pk=(\w+)\)")


@register.filter
def told(value: object) -> str:
    """Return a former value in words: a missing value is "nothing", not `None`."""
    text = str(value)
    if text in ("", "None", "[]", "{}"):
        return "nothing"
    deleted = _DELETED.fullmatch(text)
    if deleted is None:
        return text
    kind, key = deleted.groups()
    return "nothing" if key == "None" else f"{kind} {key}, which was deleted since"
