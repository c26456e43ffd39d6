"""Run a gateway: `python -m inference.gateway`."""

import os
import socket
import sys

import uvloop

from inference import logs
from inference.gateway.server import serve
from inference.gateway.settings import from_environment


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno or 0)
        sys.exit(f"The gateway cannot listen on {host}:{port}: {reason}.")
    listener.setblocking(False)
    return listener


def main() -> None:
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        sys.exit(str(error))
    logs.configure("gateway", level=settings.log_level)
    public = _bind(settings.host, settings.port)
    operator = _bind(settings.operator_host, settings.operator_port)
    uvloop.run(serve(settings, public, operator))


if __name__ == "__main__":
    main()
