"""Run a gateway: `python -m inference.gateway`."""

import os
import resource
import sys

import structlog
import uvloop

from inference.errors import rendering
from inference.gateway.server import serve
from inference.gateway.settings import from_environment
from inference.installation import allocator, logs
from inference.installation.sockets import bind_port

# Files besides those of clients: sockets of engines, spool segments, libraries.
_OTHER_FILES = 256


def main() -> None:
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        sys.exit(str(error))
    logs.configure(settings.name, level=settings.log_level)
    rendering.set_site(settings.public_url)
    allocator.keep_freed_memory()
    shared = settings.gateways > 1
    public = bind_port(settings.host, settings.port, shared=shared)
    operator = bind_port(settings.operator_host, settings.operator_port, shared=shared)
    _allow_files(settings.max_connections)
    uvloop.run(serve(settings, public, operator))


def _allow_files(connections: int) -> None:
    """Raise the limit on open files: each client may need a socket and a file.

    Many systems start with 1024, so a thousand idle clients would keep all others out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = 2 * connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        structlog.get_logger(__name__).warning(
            "few_open_files", limit=hard, needed=needed
        )


if __name__ == "__main__":
    main()
