"""Find out whether the installation runs, without the database."""

import asyncio
from pathlib import Path

import psutil
from django.conf import settings

from config.checks.finding import Finding, unknown
from inference.gateway.operators.reports import GatewayReport
from inference.gateway.operators.siblings import Siblings
from inference.gateway.settings import gateway_names

NOT_RUNNING = unknown("Not looked at: Modelyard does not run here.")


def gateway_reports() -> list[GatewayReport]:
    """Ask every gateway of this home for its report; those that hang are left out."""
    names = gateway_names(settings.MODELYARD_GATEWAYS)
    siblings = Siblings(settings.HOME.run, own_name="", names=names)
    return asyncio.run(siblings.reports())


def supervisor() -> psutil.Process | None:
    """Return the process of `serve` on this home; None if none runs.

    In containers there is none: something else starts the processes there.
    """
    path: Path = settings.HOME.root / "supervisor.lock"
    try:
        process = psutil.Process(int(path.read_text()))
        # Another process may have the number of one that died.
        younger = process.create_time() > path.stat().st_mtime
    except (OSError, ValueError, psutil.Error):
        return None
    return None if younger else process


def not_running() -> list[Finding]:
    """Return why the findings of a running installation are missing; [] if it runs."""
    if supervisor() is not None or gateway_reports():
        return []
    return [NOT_RUNNING]
