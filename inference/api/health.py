"""Answer health checks on the gateway's paths, for deployments without a gateway.

Anybody gets one word and a status; the admin shows operators the rest.
"""

import django.db
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from inference.models import Engine, LoadedVersion, ServingRoute, SnapshotState


@never_cache
@require_safe
def alive(request: HttpRequest) -> HttpResponse:
    """Answer 200 as long as this process runs."""
    return _say(200, "ok")


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Answer 200 if every served default can answer, else 503."""
    try:
        is_ready = defaults_can_answer()
    except django.db.Error:
        is_ready = False
    return _say(200, "ready") if is_ready else _say(503, "not ready")


def defaults_can_answer() -> bool:
    """Return whether each default is ready on a running engine, by two queries."""
    if not SnapshotState.objects.filter(published__gt=0).exists():
        return False
    loaded = LoadedVersion.objects.filter(
        model=OuterRef("model"),
        version=OuterRef("default_version"),
        state=LoadedVersion.State.READY,
        engine__state=Engine.State.RUNNING,
    )
    served = ServingRoute.objects.exclude(default_version=None)
    return not served.exclude(Exists(loaded)).exists()


def _say(status: int, word: str) -> HttpResponse:
    return HttpResponse(word, status=status, content_type="text/plain; charset=utf-8")
