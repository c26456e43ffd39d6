"""Give the database connections of a check short timeouts.

The connections of pages wait for minutes, and SQLite would create a missing file.
"""

import threading
from typing import Any
from urllib.parse import quote

from django.db import connection
from django.db.backends.signals import connection_created

TIMEOUT_S = 3

_of_thread = threading.local()


def hurry() -> None:
    """Let the connection that this thread is about to open give up in seconds."""
    _of_thread.hurries = True
    settings = connection.settings_dict
    options = dict(settings["OPTIONS"])
    name = str(settings["NAME"])
    if connection.vendor == "sqlite":
        options["timeout"] = TIMEOUT_S
        if not name.startswith("file:") and name != ":memory:":
            name = f"file:{quote(name)}?mode=rw"
    else:
        options["connect_timeout"] = TIMEOUT_S
    # A copy: the threads of a process share the original.
    connection.settings_dict = {**settings, "NAME": name, "OPTIONS": options}


def _bound_statements(**arguments: Any) -> None:
    made = arguments["connection"]
    if getattr(_of_thread, "hurries", False) and made.vendor == "postgresql":
        with made.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", [f"{TIMEOUT_S}s"])


connection_created.connect(_bound_statements, dispatch_uid="config.checks.impatient")
