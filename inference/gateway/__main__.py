"""Run a gateway: `python -m inference.gateway`."""

import os
import resource

import structlog
import uvloop

from inference.errors import rendering
from inference.gateway.server import serve
from inference.gateway.settings import files_needed, from_environment
from inference.installation import allocator
from inference.installation.log_lines import logs
from inference.installation.preparing import exit_with
from inference.installation.sockets import bind_port


def main() -> None:
    try:
        settings = from_environment(os.environ)
    except ValueError as error:
        exit_with(str(error))
    logs.configure(settings.name, level=settings.log_level)
    rendering.set_site(settings.public_url)
    allocator.keep_freed_memory()
    # Shared also by a single gateway: in an upgrade, its successor listens beside it.
    public = bind_port(settings.host, settings.port, shared=True)
    operator = bind_port(settings.operator_host, settings.operator_port, shared=True)
    _allow_files(settings.max_connections)
    uvloop.run(serve(settings, public, operator))


def _allow_files(connections: int) -> None:
    """Raise the limit on open files.

    Many systems start with 1024, so a thousand idle clients would keep all others out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = files_needed(connections)
    if hard != resource.RLIM_INFINITY and hard < needed:
        structlog.get_logger(__name__).warning(
            "few_open_files", limit=hard, needed=needed
        )


if __name__ == "__main__":
    main()
