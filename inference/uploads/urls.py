"""URLs below /api/v1/."""

from django.urls import path

from inference.uploads import views

urlpatterns = [
    path("uploads", views.UploadsView.as_view(), name="uploads"),
    path(
        "uploads/<str:upload_id>/content",
        views.UploadContentView.as_view(),
        name="upload-content",
    ),
]
