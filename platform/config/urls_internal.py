"""URLs for this installation's own processes; see `middleware/internal_calls.py`."""

from django.urls import include, path

urlpatterns = [
    path("internal/", include("accounts.api.urls_internal")),
    path("internal/", include("inference.uploads.urls_internal")),
    path("", include("inference.api.urls_health")),
]
