"""URLs below /api/v1/."""

from django.urls import path

from inference.jobs.api import views

urlpatterns = [
    path("jobs", views.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", views.JobView.as_view(), name="job"),
    path(
        "jobs/<str:job_id>/result",
        views.JobResultView.as_view(),
        name="job-result",
    ),
    path(
        "jobs/<str:job_id>/result/link",
        views.JobResultLinkView.as_view(),
        name="job-result-link",
    ),
    path(
        "jobs/<str:job_id>/errors",
        views.JobErrorsView.as_view(),
        name="job-errors",
    ),
    path(
        "jobs/<str:job_id>/cancel",
        views.CancelJobView.as_view(),
        name="job-cancel",
    ),
]
