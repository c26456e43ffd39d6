"""Write a line for each call, or for a share of them, without payloads."""

import random
from collections.abc import Callable

import structlog

from accounts.admission.networks import Networks, client_address
from inference.dialects.dialect import Call
from inference.prediction.effects import Answer

logger = structlog.get_logger("calls")

_FIRST_ERROR = 400


class CallLog:
    """Log this share of all calls, and each error.

    Errors beyond the share are held back where they repeat: a client that errs ten
    thousand times a second must not fill a disk.
    """

    def __init__(
        self,
        share: float,
        *,
        trusted_proxies: Networks,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._share = share
        self._trusted_proxies = trusted_proxies
        self._draw = draw

    def note(self, call: Call, answer: Answer, received_bytes: int) -> None:
        drawn = self._share >= 1 or self._draw() < self._share
        if not drawn and answer.status < _FIRST_ERROR:
            return
        client = client_address(
            call.peer, call.head.forwarded_for, self._trusted_proxies
        )
        event = answer.event
        if event is None:
            # Without a valid key.
            logger.info(
                "call",
                operation=call.operation,
                status=answer.status,
                client=client,
                bytes_in=received_bytes,
                bytes_out=len(answer.body),
                every=drawn,
            )
            return
        logger.info(
            "call",
            model=event.model,
            version=event.version,
            variant=event.variant,
            operation=event.operation,
            status=event.status,
            code=event.code,
            rows=event.rows,
            ms=event.total_us / 1000,
            queue_ms=answer.queue_us / 1000,
            compute_ms=event.compute_us / 1000,
            customer_id=event.customer_id,
            key_id=event.key_id,
            request_id=event.request_id,
            client=client,
            bytes_in=received_bytes,
            bytes_out=len(answer.body),
            cached=event.cached,
            fallback=event.fallback,
            every=drawn,
        )
