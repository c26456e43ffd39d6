"""One virtual environment per peer, so that no peer's pins touch another's."""

import hashlib
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent / ".envs"


class InstallFailed(Exception):
    """pip's last lines."""


def ensure(name: str, requirements: tuple[str, ...]) -> Path:
    """Return the folder of the peer's environment, made where it is not complete."""
    folder = ENVIRONMENTS / name
    stamp = folder / ".installed"
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    result = subprocess.run(
        [
            str(folder / "bin" / "python"),
            *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *requirements,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise InstallFailed("\n".join(result.stderr.splitlines()[-5:]))
    stamp.write_text(wanted)
    return folder
