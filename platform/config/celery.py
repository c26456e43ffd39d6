"""The Celery application: `celery -A config worker`."""

import os
import sys
from typing import Any

from celery import Celery, signals

from config.processes import celery_log

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("modelyard")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def _keep_our_logging(**_: Any) -> None:
    """Keep Celery from setting up its own logging, because a receiver exists."""
    celery_log.install()
    # Celery writes there, past all logging, that it shuts down.
    sys.__stdout__ = None  # type: ignore[misc]


signals.setup_logging.connect(_keep_our_logging)
