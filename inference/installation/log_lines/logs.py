"""Log from every process on standard error, one JSON object per line.

Fields are facts about the call, never a key, secret or payload. What Python and
libraries warn of, and what nobody catches, becomes such a line, too.
"""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Hashable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import structlog

from inference.installation.log_lines.outage_lines import (
    OutageLines,
    reason_of,
    without_passwords,
)
from inference.installation.log_lines.repeated_lines import WINDOW_S, RepeatedLines

# Limits for one text field, and for each end of a traceback.
_MOST_CHARACTERS = 4000
_MOST_OF_A_TRACE = 8000
# Lines of one event are of different kinds if one of these fields differs.
_KIND_FIELDS = ("status", "code", "step", "engine", "model", "version", "outage")

outages = OutageLines()


def level_of(environment: Mapping[str, str], *, default: str = "INFO") -> str:
    """Return LOG_LEVEL; a level that does not exist means the default."""
    level = environment.get("LOG_LEVEL", "").upper()
    return level if level in logging.getLevelNamesMapping() else default


def configure(
    process: str, *, level: str = "INFO", uncaught: bool = True, output: Any = None
) -> None:
    """Send structlog and the standard library's logging through one renderer.

    `uncaught` is false for commands of people, who see Python's own traceback.
    """
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

    structlog.configure(
        processors=[
            count_outages,
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(output or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                name_process,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                make_fit,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These log one line per outgoing request or message, which our own lines cover.
    for chatty in ("httpx", "httpcore", "celery"):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))
    # This logs a second line for each request that the site refuses.
    logging.getLogger("django.request").setLevel(logging.ERROR)
    # Anybody can send many forms without the CSRF cookie; that is not our failure.
    logging.getLogger("django.security.csrf").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    if uncaught:
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread


def count_outages(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Write the first and the last line of an outage, and exceptions as reasons."""
    error = event.get("exc_info")
    if error is True:
        error = sys.exception()
    if isinstance(error, BaseException) and (part := outages.part_of(error)):
        # The reason says all that a traceback would. A line that names its outage keeps
        # that name, by which its writer says that it is over.
        away = _away(part, error)
        event = {**away, **event} if "outage" in event else {**event, **away}
        del event["exc_info"]
    if "outage" in event or "outage_over" in event:
        completed = outages.complete(dict(event))
        if completed is None:
            raise structlog.DropEvent
        event = completed
    reason = event.get("reason")
    if isinstance(reason, BaseException):
        event["reason"] = reason_of(reason)
    return event


def make_fit(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Cut texts that a client made long, and hide passwords."""
    event.pop("every", None)
    for name, value in event.items():
        if not isinstance(value, str):
            continue
        text = without_passwords(value)
        if name == "exception":
            if len(text) > 2 * _MOST_OF_A_TRACE:
                text = f"{text[:_MOST_OF_A_TRACE]}…{text[-_MOST_OF_A_TRACE:]}"
        elif len(text) > _MOST_CHARACTERS:
            text = text[: _MOST_CHARACTERS - 1] + "…"
        event[name] = text
    return event


def _away(part: str, error: BaseException) -> dict[str, Any]:
    return {"event": f"{part}_unavailable", "outage": part, "reason": error}


class _Kind(NamedTuple):
    logger: str
    level: int
    event: str
    facts: tuple[tuple[str, Any], ...] = ()


class Flood:
    """Hold back lines that repeat too often; a timer sums them up.

    Lines with `every` were asked for, one by one, and are never held back.
    """

    def __init__(self) -> None:
        self._lines = RepeatedLines()
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        # A forked process has no timer, and its parent sums up what came before.
        os.register_at_fork(after_in_child=self._start_over)
        atexit.register(self.sum_up, at_the_end=True)

    def admits(self, logger: str, level: int, event: Mapping[str, Any]) -> bool:
        if "more" in event or event.get("every"):
            return True
        facts = tuple(
            (name, fact if isinstance(fact, int) else str(fact))
            for name in _KIND_FIELDS
            if (fact := event.get(name)) is not None
        )
        kind = _Kind(logger, level, str(event.get("event"))[:_MOST_CHARACTERS], facts)
        other = _Kind(logger, level, "lines_of_many_kinds")
        with self._lock:
            admitted = self._lines.admits(kind, other=other, now=time.monotonic())
            if not admitted and self._timer is None:
                timer = threading.Timer(WINDOW_S, self.sum_up)
                timer.daemon = True
                with contextlib.suppress(RuntimeError):  # no thread can start now
                    timer.start()
                    self._timer = timer
        return admitted

    def sum_up(self, *, at_the_end: bool = False) -> None:
        with self._lock:
            self._timer = None
            if at_the_end:
                sums = self._lines.rest()
            else:
                sums = self._lines.sums(time.monotonic())
        for kind, more in sums:
            _write_sum(kind, more)

    def _start_over(self) -> None:
        self._lines = RepeatedLines()
        self._timer = None
        self._lock = threading.RLock()


def _write_sum(kind: Hashable, more: int) -> None:
    """Write how many more lines of a kind there were."""
    assert isinstance(kind, _Kind)
    facts = {name: value for name, value in kind.facts if name != "outage"}
    structlog.get_logger(kind.logger).log(
        kind.level, kind.event, more=more, in_last_s=WINDOW_S, **facts
    )


flood = Flood()


def hold_back(
    _logger: object, method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Drop a line that repeats too often, where no handler of ours does so."""
    level = logging.getLevelNamesMapping().get(method.upper(), logging.INFO)
    if not flood.admits("", level, event):
        raise structlog.DropEvent
    return event


class _Handler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        if self.stream.closed:
            return  # at the end of a process
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and (part := outages.part_of(error)):
            structlog.get_logger(record.name).log(record.levelno, **_away(part, error))
            return
        told = record.msg if isinstance(record.msg, dict) else {"event": record.msg}
        if flood.admits(record.name, record.levelno, told):
            super().emit(record)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger(__name__).critical(
        "process_failed", exc_info=(kind, error, trace)
    )


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None:
        return  # the thread was ended by SystemExit
    structlog.get_logger(__name__).error(
        "thread_failed",
        thread=arguments.thread.name if arguments.thread else None,
        exc_info=arguments.exc_value,
    )
