"""Views of jobs: submit, list, show, cancel, fetch the output."""

import os
from collections.abc import Iterator
from typing import Any, cast

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.authentication import HasScope
from accounts.customers import plans
from accounts.models import ApiKey
from inference.api.openapi.shared_schemas import json_body, reference
from inference.errors.api_error import ApiError, ErrorCode
from inference.jobs import files as job_files
from inference.jobs import ids as job_ids
from inference.jobs import life_cycle as jobs
from inference.jobs import results as job_results
from inference.jobs import version_choice as job_targets
from inference.jobs.api import links as job_links
from inference.jobs.api import requests as job_requests
from inference.jobs.api.serializers import (
    JobErrorsSerializer,
    JobListQuerySerializer,
    JobListSerializer,
    JobResultLinkSerializer,
    JobResultSerializer,
    JobSerializer,
    present,
)
from inference.models import PredictionJob
from inference.snapshot.targets import ending_headers


class _JobView(APIView):
    permission_classes = [IsAuthenticated, HasScope]
    required_scope = "jobs"

    @property
    def key(self) -> ApiKey:
        return cast(ApiKey, self.request.auth)

    def own_jobs(self) -> QuerySet[PredictionJob]:
        """Return the jobs that the caller may see."""
        own = PredictionJob.objects.filter(customer_id=self.key.customer_id)
        if self.key.allowed_models:
            own = own.filter(model__in=self.key.allowed_models)
        return own

    def get_job(self, job_id: str) -> PredictionJob:
        # Checked first, because PostgreSQL refuses to look up some invalid ids.
        job = job_ids.is_id(job_id) and self.own_jobs().filter(pk=job_id).first()
        if not job:
            raise ApiError(ErrorCode.NOT_FOUND, "There is no such job.")
        return job

    def get_output(self, job_id: str) -> PredictionJob:
        """Return a job whose output can be fetched; else raise ApiError."""
        job = self.get_job(job_id)
        if job.status in jobs.UNFINISHED:
            raise ApiError(
                ErrorCode.CONFLICT,
                f"The job is {job.status}. Ask {_url(job)} until its status is "
                "completed, failed or cancelled.",
                retry_after_s=2.0,
            )
        if not job.has_output:
            raise ApiError(
                ErrorCode.GONE, "The output of this job has expired and was deleted."
            )
        return job


class JobsView(_JobView):
    parser_classes = [job_requests.JsonBodyParser, MultiPartParser]

    @extend_schema(
        operation_id="submitJob",
        summary="Start a job",
        description="Predict many rows in the background. Send them as JSON, or as a "
        "form with a CSV or JSON Lines file: `curl -F model=breast-cancer "
        "-F file=@rows.csv …`. Bad rows do not stop a job; they are listed in its "
        "errors. A job without any prediction has failed.",
        request={
            **json_body("SubmitJobRequest", "SubmitUploadedJobRequest"),
            "multipart/form-data": reference("SubmitJobForm"),
        },
        responses={202: JobSerializer},
        examples=[
            OpenApiExample(
                "Rows inside the request",
                value={
                    "model": "language",
                    "instances": [{"text": "Bonjour"}, {"text": "Guten Tag"}],
                    "options": {"top_k": 2},
                },
                request_only=True,
                media_type="application/json",
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        job_requests.prepare(request)
        asked = job_requests.find_file(
            job_requests.read(request), customer_id=self.key.customer_id
        )
        now = timezone.now()
        job_id = job_ids.new_id(now=now, randomness=os.urandom(job_ids.RANDOM_BYTES))
        target = job_targets.choose(
            asked.model,
            version=asked.version or request.headers.get("X-Model-Version"),
            # Without the caller's sticky key, job ids spread jobs by weight.
            sticky_key=request.headers.get("X-Sticky-Key") or job_id,
            key_id=self.key.key_id,
            allowed_models=tuple(self.key.allowed_models),
        )
        stored = job_files.store(
            job_id,
            asked,
            signature=target.signature,
            max_rows=plans.limits_of(self.key.customer).max_job_rows,
        )
        try:
            job = jobs.submit(
                job_id,
                api_key=self.key,
                target=target,
                stored=stored,
                options=asked.options,
                request_id=getattr(request, "request_id", ""),
            )
        except ApiError:
            job_files.remove(job_id)
            raise
        return Response(
            _present(job),
            status=202,
            headers={
                "Location": _url(job),
                "Retry-After": "1",
                "X-Model-Version": str(job.version),
                **_ending_headers(target),
            },
        )

    @extend_schema(
        operation_id="listJobs",
        summary="Your jobs, newest first",
        parameters=[JobListQuerySerializer],
        responses=JobListSerializer,
    )
    def get(self, request: Request) -> Response:
        query = JobListQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        limit, cursor = (
            query.validated_data["limit"],
            query.validated_data.get("cursor"),
        )
        found = self.own_jobs().order_by("-id")
        if cursor is not None:
            found = found.filter(id__lt=cursor)
        page = list(found[: limit + 1])
        more = len(page) > limit
        page = page[:limit]
        return Response(
            {
                "data": [_present(job) for job in page],
                "next_cursor": page[-1].pk if more else None,
            }
        )


class JobView(_JobView):
    @extend_schema(
        operation_id="getJob",
        summary="A job and its progress",
        responses=JobSerializer,
    )
    def get(self, request: Request, job_id: str) -> Response:
        return Response(_present(self.get_job(job_id)))


class CancelJobView(_JobView):
    @extend_schema(
        operation_id="cancelJob",
        summary="Stop a job",
        description="You can still fetch the rows that are done. A finished job "
        "answers 409.",
        request=None,
        responses=JobSerializer,
    )
    def post(self, request: Request, job_id: str) -> Response:
        job = self.get_job(job_id)
        jobs.cancel(job.pk, now=timezone.now())
        return Response(_present(self.get_job(job_id)))


class _CsvRenderer(BaseRenderer):
    """Represent CSV in content negotiation; the view streams it itself."""

    media_type = "text/csv"
    format = "csv"

    def render(
        self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None
    ) -> bytes:
        raise AssertionError("the view streams CSV itself")


class JobResultView(_JobView):
    renderer_classes = [JSONRenderer, _CsvRenderer]

    def get_permissions(self) -> Any:
        """Require no key for a signed link; `own_jobs` checks the signature."""
        return [] if self._is_link() else super().get_permissions()

    def own_jobs(self) -> QuerySet[PredictionJob]:
        if not self._is_link():
            return super().own_jobs()
        job_id, query = self.kwargs["job_id"], self.request.GET
        job_links.require_valid(
            job_id,
            expires=query.get("expires", ""),
            signature=query["signature"],
            now=timezone.now(),
        )
        return PredictionJob.objects.filter(pk=job_id)

    def _is_link(self) -> bool:
        return "signature" in self.request.GET

    @extend_schema(
        operation_id="getJobResult",
        parameters=[
            OpenApiParameter(
                "format", str, enum=["json", "csv"], description="In place of Accept."
            )
        ],
        summary="The output of a job",
        description="As JSON, or as CSV with `Accept: text/csv` or `?format=csv`. A "
        "failed or cancelled job returns the rows that were done. In CSV every member "
        "of any prediction is a column, and text that a spreadsheet would read as a "
        "formula gets an apostrophe before it.",
        responses={
            (200, "application/json"): JobResultSerializer,
            (200, "text/csv"): OpenApiTypes.STR,
        },
    )
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        job = self.get_output(job_id)
        renderer = request.accepted_renderer
        if renderer is not None and renderer.format == "csv":
            return _stream(
                job_results.as_csv(job),
                kind="text/csv; charset=utf-8",
                job=job,
                to="csv",
            )
        return _stream(
            job_results.as_json(job), kind="application/json", job=job, to="json"
        )

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        # Only the output can be CSV.
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().options(self.request, *args, **kwargs)


class JobResultLinkView(_JobView):
    @extend_schema(
        operation_id="createJobResultLink",
        summary="A link to the output that needs no key",
        description="It works for an hour. Anybody who has it can fetch this output "
        "and nothing else.",
        request=None,
        responses={201: JobResultLinkSerializer},
    )
    def post(self, request: Request, job_id: str) -> Response:
        job = self.get_output(job_id)
        expires_at = timezone.now() + job_links.LIFETIME
        path = reverse("job-result", args=[job.pk])
        base = settings.MODELYARD_PUBLIC_URL.rstrip("/")
        query = job_links.query(job.pk, expires_at=expires_at)
        return Response(
            {"url": f"{base}{path}?{query}", "expires_at": expires_at}, status=201
        )


class JobErrorsView(_JobView):
    @extend_schema(
        operation_id="getJobErrors",
        summary="The rows that failed",
        responses=JobErrorsSerializer,
    )
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        job = self.get_output(job_id)
        stream = job_results.errors_as_json(job)
        return StreamingHttpResponse(stream, content_type="application/json")


def _stream(
    content: Iterator[bytes], *, kind: str, job: PredictionJob, to: str
) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        content,
        content_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{job.pk}.{to}"'},
    )


def _present(job: PredictionJob) -> dict[str, Any]:
    return present(job, url=_url(job), now=timezone.now())


def _url(job: PredictionJob) -> str:
    return reverse("job", args=[job.pk])


def _ending_headers(target: jobs.JobTarget) -> dict[str, str]:
    if target.ending is None:
        return {}
    headers = ending_headers(target.model, target.ending)
    return {name.decode().title(): value.decode() for name, value in headers}
