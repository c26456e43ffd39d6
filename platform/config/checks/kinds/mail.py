"""Look at the mail server: connect and sign in, but send nothing."""

import smtplib

from django.conf import settings
from django.core.mail import get_connection

from config.checks import impatient
from config.checks.finding import Finding, first_line, warning, well

TITLE = "Mail"
_SMTP = "django.core.mail.backends.smtp.EmailBackend"
_CONSOLE = "django.core.mail.backends.console.EmailBackend"

UNSET = warning(
    "mail-unset",
    "No mail server is set, so mail is only printed to the log.",
    cost="Customers get no warnings of their limits, and no links for new passwords.",
    mend="EMAIL_URL=smtp+tls://user:password@host:587",
)
REFUSED = warning(
    "mail-refused",
    "The mail server {host}:{port} cannot be used: {reason}.",
    cost="Customers get no warnings of their limits, and no links for new passwords.",
    mend="EMAIL_URL=smtp+tls://user:password@host:587  # correct it",
)
PROBLEMS = (UNSET, REFUSED)


def look() -> list[Finding]:
    if settings.MAIL_BACKEND == _CONSOLE:
        if settings.MODELYARD_ENVIRONMENT == "production" or settings.HTTPS:
            return [UNSET.found()]
        return [well("It is printed to the log, as a demo does.")]
    if settings.MAIL_BACKEND != _SMTP:
        return [well(f"{settings.MAIL_BACKEND} sends it.")]
    connection = get_connection(_SMTP, timeout=impatient.TIMEOUT_S)
    host, port = settings.EMAIL_HOST, settings.EMAIL_PORT
    try:
        connection.open()
        connection.close()
    except (OSError, smtplib.SMTPException) as error:
        return [REFUSED.found(host=host, port=port, reason=first_line(error))]
    return [well(f"{host}:{port} lets us in.")]
