"""Log lines of every process: one JSON object each, on standard error. Pure.

Fields are facts about the call; no key, secret or payload is ever one of them.
"""

import logging
import sys

import structlog

# Of one text of a line, and of each end of a trace.
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
        """Cut what a client made long: long lines push all others out of the file."""
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
    # One line per outgoing request says nothing that our own lines do not.
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Nor does a second line for each refused one that the site answers.
    logging.getLogger("django.request").setLevel(logging.ERROR)
    # Nor is a form without its cookie a failure of ours: anybody may send many.
    logging.getLogger("django.security.csrf").setLevel(logging.ERROR)
