"""Mounted at /api/v1/."""

from django.urls import path

from inference import views_jobs

urlpatterns = [
    path("jobs", views_jobs.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", views_jobs.JobView.as_view(), name="job"),
    path(
        "jobs/<str:job_id>/result",
        views_jobs.JobResultView.as_view(),
        name="job-result",
    ),
    path(
        "jobs/<str:job_id>/errors",
        views_jobs.JobErrorsView.as_view(),
        name="job-errors",
    ),
    path(
        "jobs/<str:job_id>/cancel",
        views_jobs.CancelJobView.as_view(),
        name="job-cancel",
    ),
]
