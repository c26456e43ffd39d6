"""Shorten texts that may hold a stack trace, in templates of every app."""

from django import template
from django.utils.safestring import SafeString

register = template.Library()


# Unfold loads all libraries while its admin is imported, so ours cannot import one.
@register.filter
def in_short(text: str) -> str:
    from registry.admin import columns

    return columns.in_short(text)


@register.filter
def folded(text: str) -> SafeString:
    from registry.admin import columns

    return columns.folded(text)
