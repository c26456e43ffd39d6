"""Send gunicorn's own lines through our logging."""

import logging
import os
from typing import Any

from gunicorn.glogging import Logger

from inference.installation.log_lines import logs


class GunicornLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Let records go to the root logger instead of handlers of gunicorn's own.

    Gunicorn's master process never imports Django's settings, which configure logging
    in its workers.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True
        if not logging.getLogger().handlers:
            process = os.environ.get("MODELYARD_PROCESS") or "site"
            logs.configure(process, level=logs.level_of(os.environ))
