"""URLs of health checks, at the root."""

from django.urls import path

from inference.api import health

urlpatterns = [
    path("healthz", health.alive),
    path("health", health.alive),
    path("readyz", health.ready),
    path("ready", health.ready),
]
