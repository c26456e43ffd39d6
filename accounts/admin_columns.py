"""Small pieces of HTML that several lists show."""

import datetime
from typing import Any, TypedDict

from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import ApiKey, Customer

STATE_LABELS = {"active": "success", "expired": "warning", "revoked": "danger"}
# Where people are told before they are refused.
_WARN_PERCENT = 80


class QuotaBar(TypedDict):
    title: str
    unit: str
    used: int
    limit: int
    percent: int
    level: str
    resets_at: datetime.datetime | None
    # When that is, in plain words.
    resets: str


def quota_bar(
    *,
    title: str,
    unit: str,
    used: int,
    limit: int,
    resets_at: datetime.datetime | None = None,
) -> QuotaBar:
    # A full bar means that nothing is left, so all below it is rounded down.
    percent = 100 if used >= limit else 100 * used // limit
    level = "full" if percent >= 100 else "warn" if percent >= _WARN_PERCENT else "good"
    return QuotaBar(
        title=title,
        unit=unit,
        used=used,
        limit=limit,
        percent=percent,
        level=level,
        resets_at=resets_at,
        resets="",
    )


def render_quota(bar: QuotaBar) -> SafeString:
    return render_to_string("accounts/quota_bar.html", {"bar": bar})


def customer_link(customer: Customer) -> SafeString:
    url = reverse("admin:accounts_customer_change", args=(customer.pk,))
    return format_html('<a href="{}" class="text-link">{}</a>', url, customer.name)


def key_link(key: ApiKey) -> SafeString:
    url = reverse("admin:accounts_apikey_change", args=(key.pk,))
    return format_html('<a href="{}" class="text-link">{}</a>', url, key.name)


def name_of(person: User | None) -> str | None:
    """Name a person without a link: only operators may open people's pages."""
    return None if person is None else person.get_username()


def code(text: Any) -> SafeString:
    return format_html('<code class="text-xs whitespace-nowrap">{}</code>', text)


def two_lines(first: str, second: str) -> SafeString:
    return format_html(
        '<div class="whitespace-nowrap">{}<div class="text-xs text-font-subtle-light'
        ' dark:text-font-subtle-dark">{}</div></div>',
        first,
        second,
    )


def key_state(key: ApiKey) -> SafeString:
    """Show the state as a badge where unfold shows plain values, as in forms."""
    state = key.state.value
    return render_to_string(
        "unfold/helpers/label.html", {"text": state, "type": STATE_LABELS[state]}
    )


def words(values: list[str], *, none: str) -> SafeString:
    """List a few words in one line; say what an empty list means."""
    if not values:
        return format_html('<span class="text-font-subtle-light">{}</span>', none)
    return format_html("{}", ", ".join(values))
