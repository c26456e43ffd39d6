"""Log from every process on standard error, one JSON object per line.

Fields are facts about the call, never a key, secret or payload.
"""

import logging
import sys

import structlog

# Limits for one text field, and for each end of a traceback.
_MOST_CHARACTERS = 4000
_MOST_OF_A_TRACE = 8000


def configure(process: str, *, level: str = "INFO") -> None:
    """Send structlog and the standard library's logging through one renderer."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]

    def name_process(
        _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        event["process"] = process
        return event

    def shorten(
        _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        """Cut texts that a client made long; they would push others out of the file."""
        for name, value in event.items():
            if not isinstance(value, str):
                continue
            if name == "exception":
                if len(value) > 2 * _MOST_OF_A_TRACE:
                    ends = value[:_MOST_OF_A_TRACE], value[-_MOST_OF_A_TRACE:]
                    event[name] = "…".join(ends)
            elif len(value) > _MOST_CHARACTERS:
                event[name] = value[: _MOST_CHARACTERS - 1] + "…"
        return event

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                name_process,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                shorten,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These log one line per outgoing request, which our own lines already cover.
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # This logs a second line for each request that the site refuses.
    logging.getLogger("django.request").setLevel(logging.ERROR)
    # Anybody can send many forms without the CSRF cookie; that is not our failure.
    logging.getLogger("django.security.csrf").setLevel(logging.ERROR)
