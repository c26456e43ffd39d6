"""The page of operators that shows what `modelyard check` prints."""

import threading
import time

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from config.checks import running
from config.checks.running import Report

# Operators and administrators: the findings name folders and addresses.
PERMISSION = "inference.change_host"
# Many who look at the dashboard must not make each other wait.
_KEPT_S = 10.0


class LastReport:
    """The last report of this process; one thread at a time makes another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._report: tuple[float, Report] | None = None

    def report(self) -> Report:
        with self._lock:
            kept = self._report
            if kept is None or time.monotonic() - kept[0] > _KEPT_S:
                kept = self._report = (time.monotonic(), running.run())
            return kept[1]


last = LastReport()


def page(request: HttpRequest) -> HttpResponse:
    """Show all findings, the worst first."""
    return _answer(request, "config/check/page.html")


def summary(request: HttpRequest) -> HttpResponse:
    """Return what the dashboard shows of it, once the dashboard is there."""
    return _answer(request, "config/check/summary.html")


def _answer(request: HttpRequest, template: str) -> HttpResponse:
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    report = last.report()
    troubles = [
        {"title": section.title, "finding": finding}
        for section in report.sections
        for finding in section.findings
        if finding.code
    ]
    context = {
        **admin.site.each_context(request),
        "title": "Check of this installation",
        "report": report,
        "troubles": troubles,
    }
    return render(request, template, context)
