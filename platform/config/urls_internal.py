"""What processes ask, and no person: see `config.middleware.internal_calls`."""

from django.urls import include, path

urlpatterns = [
    path("internal/", include("accounts.api.urls_internal")),
    path("internal/", include("inference.uploads.urls_internal")),
    path("", include("inference.api.urls_health")),
]
