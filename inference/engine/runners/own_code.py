"""Let each artifact import its own Python code, though module names may repeat.

Loads run in several threads, so what they import comes one after another.
"""

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

# Code folders of all artifacts loaded so far.
_folders: set[Path] = set()
# Held while an artifact with code of its own is loaded, and while libraries are.
_own_code = threading.Lock()
_libraries = threading.Lock()


@contextmanager
def alone(artifact: str) -> Iterator[None]:
    """Load an artifact's own modules while no other artifact loads modules of its own.

    Artifacts without such code do not wait.
    """
    if not Path(artifact, "code").is_dir():
        yield
        return
    with _own_code:
        forget_namesakes(artifact)
        yield


def import_libraries(*names: str) -> None:
    """Import libraries in one thread at a time.

    Threads that import parts of one library at once may each wait for the other; then
    Python gives them modules that are only half there.
    """
    with _libraries:
        for name in names:
            importlib.import_module(name)


def forget_namesakes(artifact: str) -> None:
    """Forget modules of other artifacts that have the names of this artifact's own.

    Versions of one model bring modules with the same names, and MLflow only puts their
    folder first on the path. Modules that a version has imported stay its own; modules
    that it imports later, while it predicts, come from the version loaded last.
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
    """Return a module's file or folder; modules built into Python have neither."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return Path(next((place for place in places if place), "")).resolve()
