"""Views of uploads: create one, send its file, and read it as a gateway."""

from typing import Any, cast

from django.conf import settings
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.internal_views import is_from_this_installation
from accounts.models import ApiKey
from inference.codecs.files import uploaded
from inference.errors.api_error import ApiError, ErrorCode
from inference.models import Upload
from inference.uploads import files
from inference.uploads.serializers import (
    StoredUploadSerializer,
    UploadRequestSerializer,
    UploadSerializer,
)


class _MayUpload(BasePermission):
    """Require a key that may predict or start jobs, because uploads serve both."""

    message = "This API key may neither predict nor start jobs."

    def has_permission(self, request: Request, view: APIView) -> bool:
        key = request.auth
        return isinstance(key, ApiKey) and not {"jobs", "predict"}.isdisjoint(
            key.scopes
        )


class UploadsView(APIView):
    permission_classes = [IsAuthenticated, _MayUpload]

    @extend_schema(
        operation_id="createUpload",
        summary="Announce a large input",
        description="Returns an address to which you PUT the file, with the same "
        "Content-Type and without a key, and the `input_uri` that names it in a "
        "prediction or a job: "
        "`curl -T rows.csv -H 'Content-Type: text/csv' \"$upload_url\"`.",
        request=UploadRequestSerializer,
        responses={201: UploadSerializer},
        examples=[
            OpenApiExample(
                "A CSV file", value={"content_type": "text/csv"}, request_only=True
            )
        ],
    )
    def post(self, request: Request) -> Response:
        asked = UploadRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        upload = files.announce(
            cast(ApiKey, request.auth).customer,
            content_type=asked.validated_data["content_type"],
            max_bytes=asked.validated_data.get("max_bytes"),
        )
        return Response(_present(upload), status=201)


class UploadContentView(APIView):
    """Receive a file. The signature in the address is the permission; keys are ignored.

    The body is read piece by piece, so there is no parser.
    """

    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    parser_classes = []

    @extend_schema(
        operation_id="sendUpload",
        summary="Send the file",
        description="To the `upload_url` as it was given.",
        request=dict.fromkeys(sorted(uploaded.CONTENT_TYPES), bytes),
        responses=StoredUploadSerializer,
        auth=[],
    )
    def put(self, request: Request, upload_id: str) -> Response:
        signature = request.query_params.get("signature", "")
        upload = files.find_signed(upload_id, signature)
        given = uploaded.known_type(request.headers.get("Content-Type", ""))
        if given != upload.content_type:
            message = f"This file was announced as {upload.content_type}."
            raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
        length = request.META.get("CONTENT_LENGTH") or ""
        if not length.isdecimal():
            message = "Send the file with a Content-Length."
            raise ApiError(ErrorCode.INVALID_HEADER, message)
        stored = files.receive(upload, cast(Any, request._request), length=int(length))
        return Response(
            {
                "input_uri": uploaded.write(stored.pk),
                "bytes": stored.bytes,
                "sha256": stored.sha256,
                "expires_at": stored.expires_at,
            }
        )


def read_upload(request: HttpRequest, upload_id: str) -> HttpResponseBase:
    """Send a customer's file to a gateway of this installation."""
    if not is_from_this_installation(request):
        raise Http404
    try:
        upload = files.find(upload_id, customer_id=int(request.GET["customer"]))
        max_bytes = int(request.GET["max_bytes"])
        if upload.bytes > max_bytes:
            raise uploaded.too_large(max_bytes)
    except ApiError as error:
        return HttpResponse(error.code, status=error.status, content_type="text/plain")
    return StreamingHttpResponse(
        files.pieces(upload),
        content_type=upload.content_type,
        headers={"Content-Length": str(upload.bytes)},
    )


def upload_owner(request: HttpRequest, upload_id: str) -> HttpResponseBase:
    """Tell a gateway which customer sends a file, if the address is valid."""
    if not is_from_this_installation(request):
        raise Http404
    try:
        upload = files.find_signed(upload_id, request.GET.get("signature", ""))
    except ApiError as error:
        return HttpResponse(error.code, status=error.status, content_type="text/plain")
    return JsonResponse({"customer_id": upload.customer_id})


def _present(upload: Upload) -> dict[str, Any]:
    path = reverse("upload-content", args=[upload.pk])
    base = settings.MODELYARD_PUBLIC_URL.rstrip("/")
    return {
        "upload_url": f"{base}{path}?signature={files.sign(upload)}",
        "input_uri": uploaded.write(upload.pk),
        "expires_at": upload.expires_at,
        "content_type": upload.content_type,
        "max_bytes": upload.max_bytes,
    }
