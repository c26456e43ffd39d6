"""Paths of predictions and models, mounted at /api/v1/."""

from django.urls import path

from inference.api import views

urlpatterns = [
    path("models", views.ModelsView.as_view(), name="models"),
    path("models/<str:model>", views.ModelView.as_view(), name="model"),
    *views.prediction_paths(),
]
