"""Clear a process's environment, and send packages that write to its scratch folder."""

import ctypes
import os
import sys
import tempfile
from pathlib import Path

# Everything else goes: any other variable may hold a credential.
_KEPT = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "VIRTUAL_ENV"),
        *("CONDA_PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "MODELYARD_HOME", "MODELYARD_PROCESS"),
    }
)
_KEPT_PREFIXES = (
    *("LC_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_"),
    *("NUMEXPR_", "NUMBA_", "MALLOC_", "CUDA_", "NVIDIA_", "TORCH_", "PYTORCH_"),
    "MODELYARD_ENGINE_",
)

# Variables that name folders, and theirs within the scratch folder.
_FOLDERS = {
    "HOME": "",
    "TMPDIR": "tmp",
    "TEMP": "tmp",
    "TMP": "tmp",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "MPLCONFIGDIR": "cache/matplotlib",
    "NUMBA_CACHE_DIR": "cache/numba",
    "HF_HOME": "cache/huggingface",
    "TORCH_HOME": "cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "TRITON_CACHE_DIR": "cache/triton",
    "CUDA_CACHE_PATH": "cache/cuda",
    "KERAS_HOME": "cache/keras",
    # joblib would put files into /dev/shm.
    "JOBLIB_TEMP_FOLDER": "tmp",
}
_FIXED = {"MLFLOW_TRACKING_URI": "file:///nonexistent"}


def restrict(scratch: str) -> str:
    """Replace the environment, go to the scratch folder, and say what is left."""
    root = Path(scratch).resolve()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    for name, folder in _FOLDERS.items():
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        environment[name] = str(path)
    os.environ.clear()
    os.environ.update(environment | _FIXED)
    _wipe_first_environment()
    # It may remember the old folder.
    tempfile.tempdir = None
    # Packages that write to the current folder work, too.
    os.chdir(root)
    return "no credentials; its home and temporary files are in its scratch folder"


def _wipe_first_environment() -> None:
    """Overwrite the texts with which this process or its parent was started.

    Clearing variables leaves them in memory and in /proc/self/environ. Those that are
    kept were copied when they were set again.
    """
    if not sys.platform.startswith("linux"):
        return
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # Fields 50 and 51 of proc_pid_stat(5), counted from field 3.
    start, end = int(fields[47]), int(fields[48])
    if start:
        ctypes.memset(start, 0, end - start)
