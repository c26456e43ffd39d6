"""Run a gateway: `python -m inference.gateway`."""

import os
import sys

import uvloop

from inference import allocator, logs
from inference.gateway.server import serve
from inference.gateway.settings import from_environment
from inference.gateway.sockets import bind_port


def main() -> None:
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        sys.exit(str(error))
    logs.configure(settings.name, level=settings.log_level)
    allocator.keep_freed_memory()
    shared = settings.gateways > 1
    public = bind_port(settings.host, settings.port, shared=shared)
    operator = bind_port(settings.operator_host, settings.operator_port, shared=shared)
    uvloop.run(serve(settings, public, operator))


if __name__ == "__main__":
    main()
