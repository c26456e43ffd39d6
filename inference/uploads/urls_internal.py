"""URLs below /internal/, for the processes of this installation."""

from django.urls import path

from inference.uploads import views

urlpatterns = [
    path("uploads/<str:upload_id>", views.read_upload),
    path("uploads/<str:upload_id>/owner", views.upload_owner),
]
