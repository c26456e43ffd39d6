"""Count mails that are sent, and those that fail."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend

from inference.metrics.counts import HERE


class CountedBackend(BaseEmailBackend):
    """Send by `MAIL_BACKEND`."""

    def __init__(self, fail_silently: bool = False, **options: Any) -> None:
        super().__init__(fail_silently=fail_silently)
        self._backend = get_connection(
            settings.MAIL_BACKEND, fail_silently=fail_silently, **options
        )

    def open(self) -> bool | None:
        return self._backend.open()

    def close(self) -> None:
        self._backend.close()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        sent = 0
        try:
            sent = self._backend.send_messages(email_messages) or 0
        finally:
            HERE.add("mails", "sent", by=sent)
            HERE.add("mails", "failed", by=len(email_messages) - sent)
        return sent
