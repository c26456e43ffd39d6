"""Send one mail, without ever stopping what it tells of."""

import smtplib

import structlog
from django.core.mail import send_mail

logger = structlog.get_logger(__name__)


def send(to: str, *, subject: str, message: str, customer_id: int | None = None) -> int:
    """Mail `to`; return 0, and log why, if the mail could not leave.

    A mail server may be away or refuse (OSError, with all errors of SMTP), and no
    server takes some addresses (ValueError).
    """
    try:
        return send_or_raise(to, subject=subject, message=message)
    except (OSError, ValueError) as error:
        logger.warning("mail_not_sent", reason=error, customer_id=customer_id)
        return 0


def send_or_raise(to: str, *, subject: str, message: str) -> int:
    """Mail `to`; raises OSError, or ValueError for an address that no server takes."""
    # The head of a mail is one line, and a name in it may have several.
    return send_mail(" ".join(subject.split()), message, None, [to])


def is_refused(error: OSError) -> bool:
    """Return whether the server took no mail to this address; others may be taken."""
    return isinstance(
        error,
        smtplib.SMTPRecipientsRefused
        | smtplib.SMTPSenderRefused
        | smtplib.SMTPDataError,
    )


def may_be_taken_later(error: OSError) -> bool:
    """Return whether the same mail may leave later: codes from 500 on are final."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(code < 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
        return error.smtp_code < 500
    return True
