"""Every exception of a DRF view becomes the one error shape, without a leak."""

import errno
import json
import sqlite3

import pytest
import redis
from django.core.exceptions import PermissionDenied
from django.db import DataError
from django.http import Http404
from django_ratelimit.exceptions import Ratelimited
from rest_framework import exceptions, serializers
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView
from structlog.testing import capture_logs

from inference.errors.api_error import ApiError, ErrorCode, Problem

SECRET = "SELECT secret FROM /srv/keys"


def answer(exception, *, method="get", **headers):
    class View(APIView):
        authentication_classes = ()
        permission_classes = ()

        def get(self, request):
            raise exception

    return View.as_view()(getattr(APIRequestFactory(), method)("/x", **headers))


def error_of(response):
    return json.loads(response.content)["error"]


@pytest.mark.parametrize(
    ("exception", "status", "code"),
    [
        (ApiError(ErrorCode.GONE, "It is gone."), 410, "GONE"),
        (Http404(SECRET), 404, "NOT_FOUND"),
        (exceptions.NotFound(SECRET), 404, "NOT_FOUND"),
        (PermissionDenied(SECRET), 403, "FORBIDDEN"),
        (exceptions.PermissionDenied(SECRET), 403, "FORBIDDEN"),
        (Ratelimited(SECRET), 429, "RATE_LIMIT_EXCEEDED"),
        (exceptions.Throttled(wait=2.5), 429, "RATE_LIMIT_EXCEEDED"),
        (exceptions.ParseError(SECRET), 400, "INVALID_JSON"),
        (exceptions.AuthenticationFailed(SECRET), 401, "UNAUTHENTICATED"),
        (exceptions.NotAuthenticated(SECRET), 401, "UNAUTHENTICATED"),
        (exceptions.NotAcceptable(SECRET), 406, "NOT_ACCEPTABLE"),
        (exceptions.UnsupportedMediaType(SECRET), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (exceptions.APIException(SECRET), 500, "INTERNAL_ERROR"),
        (RuntimeError(SECRET), 500, "INTERNAL_ERROR"),
        (OSError(errno.ENOSPC, SECRET), 503, "OVERLOADED"),
        (OSError(errno.EROFS, SECRET), 503, "OVERLOADED"),
        (FileNotFoundError(errno.ENOENT, SECRET), 500, "INTERNAL_ERROR"),
        (redis.ReadOnlyError(SECRET), 503, "OVERLOADED"),
        (sqlite3.OperationalError(SECRET), 503, "OVERLOADED"),
    ],
)
def test_every_exception_has_its_code_and_tells_no_secret(exception, status, code):
    response = answer(exception)

    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert {"message", "request_id", "timestamp", "docs"} <= error_of(response).keys()
    assert SECRET.encode() not in response.content


def test_a_method_that_is_not_allowed_says_which_are():
    response = answer(RuntimeError(), method="put")

    assert response.status_code == 405
    assert error_of(response)["code"] == "METHOD_NOT_ALLOWED"
    assert "GET" in response.headers["Allow"]


def test_validation_errors_name_their_fields():
    detail = {
        "name": ["This field is required."],
        "options": {"top_k": ["A valid integer is required."]},
        "rows": [{}, {"a": ["bad"]}],
        "non_field_errors": ["Too much."],
    }

    response = answer(serializers.ValidationError(detail))

    assert response.status_code == 400
    assert [
        (problem.get("field"), problem["issue"])
        for problem in error_of(response)["details"]
    ] == [
        ("name", "This field is required."),
        ("options.top_k", "A valid integer is required."),
        ("rows[1].a", "bad"),
        (None, "Too much."),
    ]


def test_details_and_retry_advice_are_kept():
    error = ApiError(
        ErrorCode.OVERLOADED,
        "Busy.",
        details=(Problem("why", index=3),),
        retry_after_s=1.2,
    )

    response = answer(error)

    assert response.headers["Retry-After"] == "2"
    assert error_of(response)["details"] == [{"issue": "why", "index": 3}]


def test_problem_json_is_given_to_those_who_accept_it():
    response = answer(Http404(), HTTP_ACCEPT="application/problem+json")

    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.content)["status"] == 404


def test_the_key_is_asked_for_in_the_standard_way():
    response = answer(exceptions.NotAuthenticated())

    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_what_the_database_refuses_to_store_is_logged_without_it():
    with capture_logs() as logs:
        response = answer(DataError(SECRET))

    assert response.status_code == 400
    assert [(log["event"], log["reason"]) for log in logs] == [
        ("request_unstorable", "DataError")
    ]
    assert SECRET not in str(logs)
