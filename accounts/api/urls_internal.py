"""Mounted at /internal/."""

from django.urls import path

from accounts.api import internal_views

urlpatterns = [
    path("leases", internal_views.grant_lease, name="grant-lease"),
]
