"""Make a virtual environment per peer, so that their requirements cannot conflict."""

import hashlib
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent / ".envs"


class InstallFailed(Exception):
    """An installation failed; the message is the end of pip's output."""


def ensure(name: str, requirements: tuple[str, ...]) -> Path:
    """Return the folder of the peer's environment; make it if it is not complete."""
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
