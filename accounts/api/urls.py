"""Mounted at /api/v1/."""

from django.urls import path

from accounts.api import views

urlpatterns = [
    path("me", views.MeView.as_view(), name="me"),
    path("usage", views.UsageView.as_view(), name="usage"),
]
