"""Paths of predictions and models, mounted at /api/v1/."""

from django.urls import path

from inference.api import feedback, history, views

urlpatterns = [
    path("models", views.ModelsView.as_view(), name="models"),
    path("models/<str:model>", views.ModelView.as_view(), name="model"),
    path(
        "models/<str:model>/history",
        history.ModelHistoryView.as_view(),
        name="model-history",
    ),
    path("feedback", feedback.FeedbackView.as_view(), name="feedback"),
    *views.prediction_paths(),
]
