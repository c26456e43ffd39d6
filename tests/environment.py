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
for _name in ("DATABASE_URL", "CACHE_URL", "CELERY_BROKER_URL", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)
