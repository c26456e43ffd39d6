"""Remove the files of packages from this environment, but keep their metadata."""

import shutil
import sys
from importlib import metadata
from pathlib import Path


def main() -> None:
    names = Path(sys.argv[1]).read_text().split("\n")
    for name in names:
        if not name or name.startswith("#"):
            continue
        distribution = metadata.distribution(name)
        folders = {file.parts[0] for file in distribution.files or ()}
        for folder in folders - {"..", "__pycache__"}:
            path = Path(str(distribution.locate_file(folder)))
            if path.suffix == ".dist-info":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
