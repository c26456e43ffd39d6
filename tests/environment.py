"""Give every test run a home, temporary files and enough processes of its own.

It is a plug-in, because pytest-django reads the settings before any conftest.
"""

import atexit
import os
import shutil
import tempfile

import pytest


def _make_folder() -> str:
    path = tempfile.mkdtemp(prefix="modelyard-test-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


if "PYTEST_XDIST_WORKER" not in os.environ:
    # A home with a long path has its sockets and counts among the temporary files. This
    # folder keeps them from a later run with the same names. Files of tests themselves
    # stay where pytest keeps them.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = os.environ["TMPDIR"] = _make_folder()
_home = _make_folder()
os.environ["MODELYARD_HOME"] = _home
if os.environ.get("MODELYARD_TEST_SERVICES") == "1":
    # pytest-django gives each of xdist's workers a database; so does this, of Redis.
    _worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    _server, _, _number = os.environ["CACHE_URL"].rpartition("/")
    os.environ["CACHE_URL"] = f"{_server}/{int(_number) + _worker}"
else:
    # Tests ignore servers of a developer's shell; `make test-services` passes its own.
    for _name in ("DATABASE_URL", "CACHE_URL", "CELERY_BROKER_URL"):
        os.environ.pop(_name, None)
# Also for MLflow itself, which would make its tables in the current folder.
os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{_home}/mlflow/mlflow.db"


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are processors.

    Tests also wait: for other processes, for a browser, for a lease to run out.
    """
    return len(os.sched_getaffinity(0)) + 1
