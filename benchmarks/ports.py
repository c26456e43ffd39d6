"""Ports for servers that are about to start."""

import random
import socket

# Below those that systems hand out themselves (Linux from 32768, others from 49152): a
# port that another test or an outgoing connection has just let go may be taken again
# before the server that is to have it listens.
_FIRST, _LAST = 10_000, 32_000
# Of the system: no seed of a test run makes them the same everywhere.
_begin = random.SystemRandom().randrange(_FIRST, _LAST)
_given = 0


def free_port(count: int = 1) -> int:
    """Give a port that is free, and so are those after it, `count` in all.

    Each is given once. Processes begin in different places, so that several that look
    for ports at once do not find the same.
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
