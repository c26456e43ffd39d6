"""What one line of the log may hold."""

import json
import subprocess
import sys

WRITING = """
import logging, structlog
from inference.installation import logs

logs.configure("site", level="INFO")
logging.getLogger("django.security.csrf").warning("Forbidden: /admin/%s", "a" * 60000)
logging.getLogger("any").warning("Refused: %s", "b" * 60000)
structlog.get_logger("own").info("request", path="/" + "c" * 60000, status=500)
try:
    raise ValueError("d" * 60000)
except ValueError:
    logging.getLogger("any").exception("failed")
"""


def test_strangers_write_no_long_lines_and_none_for_forms_without_a_cookie():
    """Of lines as long as an address a few hundred push all others out of the file."""
    done = subprocess.run(
        [sys.executable, "-c", WRITING], capture_output=True, text=True, check=True
    )

    written = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in written] == ["any", "own", "any"]
    assert written[0]["event"] == "Refused: " + "b" * 3990 + "…"
    assert written[1]["path"].startswith("/ccc")
    assert written[1]["status"] == 500
    assert "Traceback" in written[2]["exception"]
    assert all(len(line) < 20_000 for line in done.stderr.splitlines())
