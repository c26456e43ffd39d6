"""Count the messages behind the bell of each page of the admin."""

from typing import Any

from django import template

register = template.Library()
_MOST = 99


@register.simple_tag
def unread_messages(user: Any) -> str:
    """Return the number of messages that a person has not read; empty: none."""
    # Deferred, as unfold loads all libraries while its admin is imported.
    from inference.following import inbox

    if not user.is_authenticated:
        return ""
    count = inbox.unread(user)
    return f"{_MOST}+" if count > _MOST else str(count or "")
