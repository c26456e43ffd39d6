"""Tell what Celery says of its broker as other outages are told: twice."""

import logging

import structlog
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)

_AWAY = ("Cannot connect to", "Connection to broker lost", "Connection error:")
_BACK = "Connected to"
_LOGGERS = ("celery.worker.consumer.consumer", "celery.beat")
_CONNECTED = "celery.worker.consumer.connection"


class BrokerFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if any(sign in text for sign in _AWAY) or _was_not_sent(record):
            told = record.args if isinstance(record.args, tuple) else ()
            reasons = (one for one in told if isinstance(one, BaseException))
            log.warning(
                "broker_unavailable", outage="broker", reason=next(reasons, text)
            )
            return False
        if _BACK in text:
            log.info("broker_available", outage_over="broker")
            return False
        return True


def _was_not_sent(record: logging.LogRecord) -> bool:
    """Return whether beat could not send a task; it says so once for each task."""
    error = record.exc_info[1] if record.exc_info else None
    return isinstance(error and error.__context__, OperationalError)


def install() -> None:
    for name in (*_LOGGERS, _CONNECTED):
        logging.getLogger(name).addFilter(BrokerFilter())
    logging.getLogger(_CONNECTED).setLevel(logging.INFO)
