"""Load a TorchScript archive (`torch.jit.script` or `trace`) of the pytorch flavor.

Its code is compiled, not Python, but may call operators that read and write files. So
it must be trusted, like a pickle.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

from inference.engine.devices import opening
from inference.engine.runners import own_code
from inference.engine.runners.torch_runner import TorchRunner
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.messages import VersionToLoad

# Where MLflow puts the archive, and where people put it by hand.
_PLACES = (Path("data", "model.pth"), Path("data", "model.pt"), Path("model.pt"))


def accepts(version: VersionToLoad) -> bool:
    return "pytorch" in version.flavors and _archive(Path(version.path)) is not None


def load(version: VersionToLoad, signature: Signature, device: str) -> TorchRunner:
    if signature.layout is Layout.TABLE or signature.params:
        raise ValueError(
            "TorchScript takes tensors only; its signature has columns of several "
            "types, or parameters."
        )
    # Deferred: torch takes a second to import, and the engine listens before that.
    own_code.import_libraries("torch")
    import torch

    archive = _archive(Path(version.path))
    place = opening.open_device(device).torch_device
    with warnings.catch_warnings():
        # torch warns that models should be exported instead.
        warnings.simplefilter("ignore", DeprecationWarning)
        read: Any = torch.jit.load
        module = read(archive, map_location=place).eval()
    return TorchRunner(module, device, signature)


def _archive(folder: Path) -> Path | None:
    for place in _PLACES:
        path = folder / place
        if path.is_file() and _is_torch_script(path):
            return path
    return None


def _is_torch_script(path: Path) -> bool:
    """Return whether an archive lists compiled code; read only the list."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    return any("/code/" in name for name in names) and any(
        name.endswith("/constants.pkl") for name in names
    )
