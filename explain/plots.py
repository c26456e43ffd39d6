"""Draw waterfall plots as SVG with shap, in a separate process.

shap takes seconds to import and matplotlib a few tenths of a second to draw, both while
holding the GIL; in the engine's process predictions would wait for that. The process
starts with the first plot and ends with the engine, which closes its standard input.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from inference.engine.wire.errors import EngineError, EngineErrorCode

_TIMEOUT_S = 25.0
# For a new process, which imports shap first. If it were killed too early, every plot
# would start the import again, and on a busy machine none would be drawn.
_FIRST_TIMEOUT_S = 120.0

_lock = threading.Lock()
_process: "subprocess.Popen[bytes] | None" = None


def draw_waterfall(
    *,
    names: Sequence[str],
    row: Sequence[float | bool | None],
    values: Sequence[float],
    base_value: float,
    title: str,
) -> str:
    """Return the plot of one explanation; raise EngineError if it cannot be drawn."""
    plot = {
        "names": list(names),
        "row": list(row),
        "values": list(values),
        "base_value": base_value,
        "title": title,
    }
    with _lock:
        process, timeout_s = _running()
        answer = _ask(process, json.dumps(plot).encode() + b"\n", timeout_s)
        if not answer:
            _end()
            raise EngineError(
                EngineErrorCode.OVERLOADED,
                "the plot was not drawn in time",
                retry_after_ms=1000,
            )
    reply = json.loads(answer)
    if "error" in reply:
        raise EngineError(EngineErrorCode.MODEL_ERROR, reply["error"])
    svg: str = reply["svg"]
    return svg


def close() -> None:
    """End the drawing process; the next plot starts another."""
    with _lock:
        _end()


def _ask(process: "subprocess.Popen[bytes]", line: bytes, timeout_s: float) -> bytes:
    """Return the answer, one line; empty if the process ended or was too slow."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        process.stdin.write(line)
        process.stdin.flush()
        answer: bytes = process.stdout.readline()
        return answer
    except OSError:
        return b""
    finally:
        timer.cancel()


def _running() -> tuple["subprocess.Popen[bytes]", float]:
    """Return the process, started if needed, and the time it has for an answer."""
    global _process
    timeout_s = _TIMEOUT_S
    if _process is None or _process.poll() is not None:
        _end()
        timeout_s = _FIRST_TIMEOUT_S
        atexit.unregister(close)
        atexit.register(close)
        _process = subprocess.Popen(
            [sys.executable, "-m", "explain.drawing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Lets it import `explain` also if that is not installed as a package.
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
    return _process, timeout_s


def _end() -> None:
    global _process
    if _process is not None:
        _process.kill()
        # Wait for the end, and close both pipes.
        _process.communicate()
    _process = None
