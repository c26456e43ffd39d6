"""Open the sockets that a gateway listens on, and those that it calls."""

import os
import socket
import sys
from pathlib import Path

import httpx

from inference.installation import modes


def bind_port(host: str, port: int, *, shared: bool) -> socket.socket:
    """Bind a TCP port, or exit with a message; `shared`: with other gateways."""
    try:
        return bound(host, port, shared=shared)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        sys.exit(f"The gateway cannot listen on {host}:{port}: {reason}.")


def bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """Bind a TCP port; raise OSError.

    The kernel spreads new connections over all processes that listen on a shared port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def bind_control(path: Path) -> socket.socket:
    """Bind a gateway's own Unix socket and remove the sockets of its predecessors.

    Sockets are named `<process>.<boot id>.sock`: sibling processes find one by its
    process, and the site finds the holder of a lease by its boot id.
    """
    name = path.name.partition(".")[0]
    for stale in path.parent.glob(f"{name}.*.sock"):
        stale.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(modes.of_files(path.parent))
    listener.setblocking(False)
    return listener


def http_over(path: Path, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
    """Return a transport for HTTP over a Unix socket.

    It loads no TLS certificates: nothing uses them here, and reading them blocks the
    event loop for thirty milliseconds.
    """
    return httpx.AsyncHTTPTransport(uds=str(path), limits=limits, verify=False)
