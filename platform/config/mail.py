"""Convert the URL of a mail server to Django's settings."""

from typing import Any

import environ

# Default ports of each kind of connection.
_PLAIN, _STARTTLS, _TLS = 25, 587, 465


def settings_of(url: str) -> dict[str, Any]:
    """Return Django's mail settings; without a URL, mail is printed to the log."""
    read = environ.Env.email_url_config(url or "consolemail://")
    tls, ssl = read.get("EMAIL_USE_TLS", False), read.get("EMAIL_USE_SSL", False)
    return {
        "EMAIL_BACKEND": read["EMAIL_BACKEND"],
        "EMAIL_HOST": read["EMAIL_HOST"] or "localhost",
        "EMAIL_PORT": read["EMAIL_PORT"]
        or (_TLS if ssl else _STARTTLS if tls else _PLAIN),
        "EMAIL_HOST_USER": read["EMAIL_HOST_USER"] or "",
        "EMAIL_HOST_PASSWORD": read["EMAIL_HOST_PASSWORD"] or "",
        "EMAIL_USE_TLS": tls,
        "EMAIL_USE_SSL": ssl,
    }
