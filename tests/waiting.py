"""Wait for what should happen soon, also on a busy machine."""

import asyncio
import time

PATIENCE_S = 120.0


def wait_until(condition, timeout_s=PATIENCE_S, *, what="it", pause_s=0.02):
    """Poll until `condition()` is true; return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(pause_s)
    return value


async def until(condition, timeout_s=PATIENCE_S):
    """Let the event loop run until `condition()` is true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)
