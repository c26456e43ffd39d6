"""Send one mail, without ever stopping what it tells of."""

import structlog
from django.core.mail import send_mail

logger = structlog.get_logger(__name__)


def send(to: str, *, subject: str, message: str, customer_id: int | None = None) -> int:
    """Mail `to`; return 0, and log why, if the mail could not leave.

    A mail server may be away or refuse (OSError, with all errors of SMTP), and no
    server takes some addresses (ValueError).
    """
    try:
        # The head of a mail is one line, and a name in it may have several.
        return send_mail(" ".join(subject.split()), message, None, [to])
    except (OSError, ValueError) as error:
        logger.warning("mail_not_sent", reason=error, customer_id=customer_id)
        return 0
