"""Configure gunicorn: take a socket over from a former server once this one answers.

Gunicorn would take the path over when it starts, seconds before it has imported its
application. So each server listens on a socket of its own, `site.PID.sock`, and the
path on which gateways call, `site.sock`, is a link to it.
"""

import os
import socket
from pathlib import Path
from typing import Any


def on_starting(server: Any) -> None:
    """Listen beside the path that was asked for, and remove what others left."""
    path = Path(server.cfg.address[0])
    for other in path.parent.glob(f"{path.stem}.*.sock"):
        if not _listens(other):
            other.unlink(missing_ok=True)
    own = path.with_name(f"{path.stem}.{os.getpid()}.sock")
    server.cfg.set("bind", f"unix:{own}")


def when_ready(server: Any) -> None:
    """Let callers wait for the import where no former server answers them."""
    if not _listens(_path(server.cfg)):
        _lead_here(server.cfg)


def post_worker_init(worker: Any) -> None:
    """Let the path lead here, unless it leads to a successor already."""
    path, own = _path(worker.cfg), _own(worker.cfg)
    if not path.exists() or path.stat().st_mtime <= own.stat().st_mtime:
        _lead_here(worker.cfg)


def _own(settings: Any) -> Path:
    return Path(settings.address[0])


def _path(settings: Any) -> Path:
    own = _own(settings)
    return own.with_name(f"{own.name.partition('.')[0]}.sock")


def _lead_here(settings: Any) -> None:
    path = _path(settings)
    link = path.with_name(f"{path.stem}.{os.getpid()}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(_own(settings).name)
    link.replace(path)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        # One whose queue is full listens; it must not hold its successor up.
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
