"""What one line of the log may hold."""

import json
import subprocess
import sys

WRITING = """
import logging, structlog
from inference.installation.log_lines import logs

logs.configure("site", level="INFO")
logging.getLogger("django.security.csrf").warning("Forbidden: /admin/%s", "a" * 60000)
logging.getLogger("any").warning("Refused: %s", "b" * 60000)
structlog.get_logger("own").info("request", path="/" + "c" * 60000, status=500)
try:
    raise ValueError("d" * 60000)
except ValueError:
    logging.getLogger("any").exception("failed")
"""
REPEATING = """
import os, structlog
from inference.installation.log_lines import logs

logs.configure("gateway")
log = structlog.get_logger("own")
for number in range(1000):
    log.warning("refused", code="A", number=number)
    log.info("call", every=True)
log.warning("refused", code="B")
log.warning("away", outage="site", reason=ConnectionError("http://a:secret@b"))
log.warning("away", outage="site", reason="still")
log.info("back", outage_over="site")
if os.fork() == 0:
    log.warning("refused", code="A", number="child")
    os._exit(0)
os.wait()
"""
FAILING_STEPS = """
import errno, structlog
from inference.installation.log_lines import logs

logs.configure("controller")
logs.outages.part_of = lambda error: "disk" if isinstance(error, OSError) else None
log = structlog.get_logger("own")
for fails in (True, True, False, True):
    try:
        if fails:
            raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        log.exception("step_failed", outage="step publish")
    else:
        log.info("step_recovered", outage_over="step publish")
"""
UNCAUGHT = """
import threading, warnings
from inference.installation.log_lines import logs

logs.configure("worker")

def fail():
    raise ValueError("in a thread")

thread = threading.Thread(target=fail, name="keeper")
thread.start()
thread.join()
warnings.warn("an old way")
raise RuntimeError("at the end")
"""


def lines_of(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    lines = done.stderr.decode().splitlines()
    assert all(len(line) < 20_000 for line in lines)
    return [json.loads(line) for line in lines]


def test_strangers_write_no_long_lines_and_none_for_forms_without_a_cookie():
    """Of lines as long as an address a few hundred push all others out of the file."""
    written = lines_of(WRITING)

    assert [line["logger"] for line in written] == ["any", "own", "any"]
    assert written[0]["event"] == "Refused: " + "b" * 3990 + "…"
    assert written[1]["path"].startswith("/ccc")
    assert written[1]["status"] == 500
    assert "Traceback" in written[2]["exception"]


def test_lines_that_repeat_are_summed_up_and_outages_are_said_twice():
    written = lines_of(REPEATING)

    by_event = {}
    for line in written:
        by_event.setdefault((line["event"], line.get("code")), []).append(line)
    numbers = [line.get("number") for line in by_event["refused", "A"]]
    assert numbers == [*range(20), "child", None]
    assert by_event["refused", "A"][-1]["more"] == 980
    assert len(by_event["refused", "B"]) == 1
    # These were asked for one by one.
    assert len(by_event["call", None]) == 1000
    assert "every" not in by_event["call", None][0]
    [away], [back] = by_event["away", None], by_event["back", None]
    assert away["reason"] == "ConnectionError: http://a:…@b"
    assert (back["outage"], back["failures"]) == ("site", 2)


def test_a_writer_that_names_an_outage_also_ends_it():
    """Otherwise a second full disk would never be said."""
    written = lines_of(FAILING_STEPS)

    said = [(line["event"], line["outage"]) for line in written]
    failed, recovered = (
        ("step_failed", "step publish"),
        ("step_recovered", "step publish"),
    )
    assert said == [failed, recovered, failed]
    assert "No space left" in written[0]["reason"]
    assert not any("exception" in line for line in written)


def test_what_nobody_catches_and_warnings_are_lines_too():
    thread, warning, process = lines_of(UNCAUGHT)

    assert (thread["event"], thread["thread"]) == ("thread_failed", "keeper")
    assert "ValueError: in a thread" in thread["exception"]
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert (process["event"], process["process"]) == ("process_failed", "worker")
    assert "RuntimeError: at the end" in process["exception"]
