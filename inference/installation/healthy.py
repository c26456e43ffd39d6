"""Say by the exit code whether a process of a container is well.

`python -m inference.installation.healthy NAME`: gateway, site and internal must answer
on their own socket; host, worker and beat must have given a sign of life lately, and
the controller must have seen the ledger lately.
"""

import contextlib
import http.client
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from inference.installation.home import Home

_TIMEOUT_S = 4.0
# They give one every five seconds, also on a full disk.
_SIGN_OF_LIFE_S = 20.0
_LEDGER_REPORT_S = 60.0


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


def problem(
    name: str,
    home: Home,
    environment: Mapping[str, str],
    processes: Path = Path("/proc"),
) -> str:
    """Return what is wrong with the process in a sentence; empty: it is well.

    `processes` has a folder for each process of the container.
    """
    gateway = environment.get("MODELYARD_PROCESS") or "gateway"
    checks: dict[str, Callable[[], str]] = {
        "gateway": lambda: _gateway_answers(home, gateway),
        "site": lambda: _answers(_OverSocket(home.site_socket)),
        "internal": lambda: _answers(_OverSocket(home.internal_socket)),
        "host": lambda: _lives(home, name, processes),
        "worker": lambda: _lives(home, name, processes),
        "beat": lambda: _lives(home, name, processes),
        "controller": lambda: _is_fresh(home.ledger_report, _LEDGER_REPORT_S),
    }
    if name not in checks:
        return f"There is no check of {name}; there are {', '.join(checks)}."
    return checks[name]()


def _gateway_answers(home: Home, name: str) -> str:
    """Ask a gateway on its own socket: on their port, siblings answer, too.

    One that was killed leaves its socket behind until the next one starts.
    """
    found = f"It has no socket {name}.*.sock in {home.run}."
    for path in home.run.glob(f"{name}.*.sock"):
        found = _answers(_OverSocket(path))
        if not found:
            return ""
    return found


def _lives(home: Home, name: str, processes: Path) -> str:
    signs = _own_signs(home, name, processes) or [home.sign_of_life(name)]
    return _is_fresh(max(signs, key=_modified_at), _SIGN_OF_LIFE_S)


def _own_signs(home: Home, name: str, processes: Path) -> list[Path]:
    """Return the signs of life that these processes hold open.

    Several workers share a home, and each has a file: `worker`, `worker-2` and so on.
    """
    wanted = re.compile(rf"{name}(-\d+)?\.lock")
    found = set()
    for process in processes.iterdir():
        links: list[Path] = []
        # It may have ended by now, or belong to another user.
        with contextlib.suppress(OSError):
            links += (process / "fd").iterdir()
        for link in links:
            # It may have been closed by now.
            with contextlib.suppress(OSError):
                found.add(link.readlink())
    return [
        path
        for path in found
        if path.parent == home.own_reports and wanted.fullmatch(path.name)
    ]


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _answers(connection: http.client.HTTPConnection) -> str:
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"It does not answer: {error}."
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"It answers with {status}."


def _is_fresh(report: Path, most_s: float) -> str:
    try:
        age_s = time.time() - report.stat().st_mtime
    except OSError as error:
        return f"It has given no sign of life: {error}."
    return "" if age_s <= most_s else f"Its last sign of life is {age_s:.0f} s old."


def main() -> None:
    home = Home(Path(os.environ.get("MODELYARD_HOME") or "var").resolve())
    if found := problem(sys.argv[1], home, os.environ):
        sys.exit(found)


if __name__ == "__main__":
    main()
