"""Mounted at /api/v1/."""

from django.urls import path

from inference.api import views

urlpatterns = [
    path("predict", views.SitePredictView.as_view(), name="site-predict"),
    path("predict/batch", views.SiteBatchView.as_view(), name="site-predict-batch"),
    path("models", views.ModelsView.as_view(), name="models"),
    path("models/<str:model>", views.ModelView.as_view(), name="model"),
    path("models/<str:model>/predict", views.PredictView.as_view(), name="predict"),
    path(
        "models/<str:model>/predict/batch",
        views.BatchView.as_view(),
        name="predict-batch",
    ),
    path("models/<str:model>/explain", views.ExplainView.as_view(), name="explain"),
    path(
        "models/<str:model>/versions/<str:version>/predict",
        views.PredictVersionView.as_view(),
        name="predict-version",
    ),
    path(
        "models/<str:model>/versions/<str:version>/predict/batch",
        views.BatchVersionView.as_view(),
        name="predict-batch-version",
    ),
    path("models/<str:model>/stream", views.StreamView.as_view(), name="stream"),
    path(
        "models/<str:model>/versions/<str:version>/stream",
        views.StreamVersionView.as_view(),
        name="stream-version",
    ),
    path("models/<str:model>/embed", views.EmbedView.as_view(), name="embed"),
    path(
        "models/<str:model>/invocations",
        views.InvocationsView.as_view(),
        name="invocations",
    ),
    path(
        "models/<str:model>/versions/<str:version>/embed",
        views.EmbedVersionView.as_view(),
        name="embed-version",
    ),
    path(
        "models/<str:model>/versions/<str:version>/invocations",
        views.InvocationsVersionView.as_view(),
        name="invocations-version",
    ),
    path(
        "models/<str:model>/versions/<str:version>/explain",
        views.ExplainVersionView.as_view(),
        name="explain-version",
    ),
]
