"""Explain error codes in templates of apps that do not know the codes."""

import re

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from inference.errors.advice import ADVICE, Advice
from inference.errors.api_error import ErrorCode

register = template.Library()
_CODE = re.compile(r"`([^`]+)`")


@register.filter
def advice(code: str) -> Advice | None:
    """Return when a code is sent and what to do about it; None if it is unknown."""
    if code not in ErrorCode.__members__:
        return None
    return ADVICE.get(ErrorCode(code))


@register.filter
def with_code(text: str) -> SafeString:
    """Render text between backticks as code."""
    return mark_safe(_CODE.sub(r"<code>\1</code>", escape(text)))
