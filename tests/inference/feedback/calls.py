"""Calls that were answered, in the spool of the installation."""

import time
import uuid

from accounts.metering.event import UsageEvent
from accounts.metering.spool import SpoolWriter

DAY_S = 86_400.0


class Calls:
    """Write the events of one process's calls."""

    def __init__(self, home):
        self._boot_id = uuid.uuid4().hex
        self._writer = SpoolWriter(home.spool, self._boot_id)
        self._count = 0

    def answer(self, key, request_id, **changes):
        self._count += 1
        fields = {
            "id": f"{self._boot_id}-{self._count}",
            "at": time.time(),
            "customer_id": key.customer_id,
            "key_id": key.key_id,
            "operation": "predict",
            "model": "sum",
            "version": "3",
            "variant": "default",
            "status": 200,
            "code": "",
            "rows": 1,
            "charged": True,
            "compute_us": 1,
            "total_us": 2,
            "shap_samples": 0,
            "request_id": request_id,
        }
        event = UsageEvent(**(fields | changes))
        self._writer.append([event])
        return event

    def close(self):
        self._writer.close()
