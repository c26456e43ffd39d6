"""Make the folders of a home in an image, so that parts of a volume have a place."""

import os
from pathlib import Path

from inference.installation.home import Home

USER = GROUP = 10001


def main() -> None:
    home = Home(Path(os.environ["MODELYARD_HOME"]))
    home.root.mkdir(parents=True, exist_ok=True)
    os.chown(home.root, USER, GROUP)
    # The group's home, see inference/installation/modes.py.
    home.root.chmod(0o2770)
    home.prepare()
    for path in home.root.rglob("*"):
        os.chown(path, USER, GROUP)


if __name__ == "__main__":
    main()
