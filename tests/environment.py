"""Gives every test run a home of its own.

A plug-in rather than a conftest: pytest-django reads the settings before any conftest.
"""

import atexit
import os
import shutil
import tempfile

_home = tempfile.mkdtemp(prefix="modelyard-test-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ["MODELYARD_HOME"] = _home
for _name in ("DATABASE_URL", "CACHE_URL", "CELERY_BROKER_URL"):
    os.environ.pop(_name, None)
# Also for MLflow itself, which would make its tables in the current folder.
os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{_home}/mlflow/mlflow.db"
