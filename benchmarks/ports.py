"""Find free ports for servers that are about to start."""

import random
import socket

# Below the ports that systems hand out themselves (Linux from 32768, others from
# 49152): the system may give a port that was just freed to another connection before
# the server listens on it.
_FIRST, _LAST = 10_000, 32_000
# The system's random numbers, so that a test run's seed does not make them equal.
_begin = random.SystemRandom().randrange(_FIRST, _LAST)
_given = 0


def free_port(count: int = 1) -> int:
    """Return the first of `count` consecutive free ports.

    Each port is returned once. Processes begin their search at different ports, so
    that several of them do not find the same one.
    """
    while True:
        port = _next(count)
        if all(_is_free(one) for one in range(port, port + count)):
            return port


def _next(count: int) -> int:
    global _given
    port = _FIRST + (_begin - _FIRST + _given) % (_LAST - _FIRST)
    _given += count
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as found:
        try:
            found.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
