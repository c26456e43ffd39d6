"""Render small pieces of HTML that several lists of the admin show."""

from typing import Any

from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import ApiKey, Customer
from accounts.quotas.display import QuotaBar

STATE_LABELS = {"active": "success", "expired": "warning", "revoked": "danger"}


def render_quota(bar: QuotaBar) -> SafeString:
    return render_to_string("accounts/quota_bar.html", {"bar": bar})


def customer_link(customer: Customer) -> SafeString:
    url = reverse("admin:accounts_customer_change", args=(customer.pk,))
    return format_html('<a href="{}" class="text-link">{}</a>', url, customer.name)


def key_link(key: ApiKey) -> SafeString:
    url = reverse("admin:accounts_apikey_change", args=(key.pk,))
    return format_html('<a href="{}" class="text-link">{}</a>', url, key.name)


def name_of(person: User | None) -> str | None:
    """Return a person's name, without a link: only operators may open their pages."""
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
    """Render a key's state as a badge, where unfold shows plain values, as in forms."""
    state = key.state.value
    return render_to_string(
        "unfold/helpers/label.html", {"text": state, "type": STATE_LABELS[state]}
    )


def words(values: list[str], *, none: str) -> SafeString:
    """List a few words in one line; write `none` for an empty list."""
    if not values:
        return format_html('<span class="text-font-subtle-light">{}</span>', none)
    return format_html("{}", ", ".join(values))
