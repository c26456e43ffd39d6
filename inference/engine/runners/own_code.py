"""Python code that artifacts bring along. Python knows modules by their names alone."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

# Of all artifacts that were loaded so far.
_folders: set[Path] = set()


def forget_namesakes(artifact: str) -> None:
    """Let an artifact import its own code, whatever others named theirs.

    Versions of one model bring modules of the same names, and MLflow only puts their
    folder first on the path. What a version imported stays its own; what it imports
    later, while it predicts, is of the version that was loaded last.
    """
    folder = Path(artifact, "code").resolve()
    if not folder.is_dir():
        return
    _folders.add(folder)
    for name in {entry.stem for entry in folder.iterdir()}:
        module = sys.modules.get(name)
        if module is None or _folders.isdisjoint(_place(module).parents):
            continue
        for known in [*sys.modules]:
            if known == name or known.startswith(f"{name}."):
                del sys.modules[known]
    importlib.invalidate_caches()


def _place(module: ModuleType) -> Path:
    """Give its file, or its folder; what is built into Python has neither."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return Path(next((place for place in places if place), "")).resolve()
