import json

import pytest

from inference.errors.api_error import STATUS, ApiError, ErrorCode, Problem
from inference.errors.rendering import render, retry_after, set_site

NOW = 1_795_000_000.0
SITE = "https://models.example"


@pytest.fixture(autouse=True)
def site(settings):
    set_site(f"{SITE}/")
    yield
    set_site(settings.MODELYARD_PUBLIC_URL)


def rendered(error, **options):
    status, headers, body = render(error, request_id="req_1", now=NOW, **options)
    return status, dict(headers), json.loads(body)


def test_error_has_the_shape_of_the_contract():
    problem = Problem(issue="must be a number", index=0, field="x", received="string")
    error = ApiError(ErrorCode.INVALID_INPUT, "1 field is invalid.", details=(problem,))

    status, headers, body = rendered(error)

    assert status == 400
    assert body == {
        "error": {
            "code": "INVALID_INPUT",
            "message": "1 field is invalid.",
            "details": [
                {
                    "index": 0,
                    "field": "x",
                    "issue": "must be a number",
                    "received": "string",
                }
            ],
            "request_id": "req_1",
            "timestamp": "2026-11-18T11:06:40Z",
            "docs": f"{SITE}/docs/errors#invalid_input",
        }
    }
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-request-id"] == b"req_1"


def test_problem_json_has_the_members_of_rfc_9457():
    error = ApiError(ErrorCode.QUOTA_EXCEEDED, "Used up.", facts={"limit": "month"})

    status, headers, body = rendered(error, problem_json=True)

    assert headers[b"content-type"] == b"application/problem+json"
    assert (body["status"], body["title"]) == (status, "Quota exceeded")
    assert body["type"] == f"{SITE}/docs/errors#quota_exceeded"
    assert body["detail"] == "Used up."
    assert (body["code"], body["limit"]) == ("QUOTA_EXCEEDED", "month")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.001, 2), (59.2, 60)]
)
def test_retry_after_never_promises_too_early_a_time(seconds, expected):
    error = ApiError(ErrorCode.OVERLOADED, "Busy.", retry_after_s=seconds)

    assert rendered(error)[1][b"retry-after"] == b"%d" % expected
    assert retry_after(seconds) == expected


def test_unauthenticated_names_the_scheme():
    headers = rendered(ApiError(ErrorCode.UNAUTHENTICATED, "Who?"))[1]

    assert headers[b"www-authenticate"] == b'Bearer realm="modelyard"'


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_renders(code):
    status, headers, body = rendered(ApiError(code, "Text."))

    assert status == STATUS[code]
    assert body["error"]["code"] == code
    assert int(headers[b"content-length"]) > 0
