"""Test that the gateway and Django answer every request alike."""

import base64
import io
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
import pytest
from rest_framework.test import APIClient

from accounts.models import Lease, QuotaCounter
from explain import plots
from inference.api import driver
from tests.inference.contract_fronts import ask_gateway
from tests.inference.contract_plant import (
    RunningEngine,
    StuckEngine,
    export_model,
    publish,
    save_speller,
)

# One process starts the engine, which takes seconds, for all of them.
pytestmark = pytest.mark.xdist_group("contract")

# Headers that callers may rely on. Those with times are only compared by presence.
CONTRACT_HEADERS = (
    "content-type",
    "x-model-version",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "ratelimit-policy",
    "retry-after",
    "www-authenticate",
    "cache-control",
    "allow",
)
PRESENT_HEADERS = (
    "x-request-id",
    "x-ratelimit-reset",
    "ratelimit",
    "server-timing",
    "content-length",
)
ROW = {"width": 7.0, "height": 5.0}
PREDICT = "/api/v1/models/sizes/predict"
BATCH = "/api/v1/models/sizes/predict/batch"
EXPLAIN = "/api/v1/models/sizes/explain"
EMBED = "/api/v1/models/vectors/embed"
STREAM = "/api/v1/models/speller/stream"
SPELLING = {"instances": [{"text": "hi"}]}
INVOCATIONS = "/api/v1/models/sizes/invocations"


@dataclass
class Case:
    """One or more equal requests; only the last answer is checked."""

    name: str
    status: int
    path: str = PREDICT
    body: Any = field(default_factory=lambda: {"instances": [ROW]})
    key: str | None = "key"
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    # Text that the body must contain, such as the name of the wrong field.
    says: str = ""
    times: int = 1
    method: str = "POST"

    @property
    def content(self) -> bytes:
        body = self.body
        return body if isinstance(body, bytes) else json.dumps(body).encode()


def rows(*values):
    return {"instances": list(values)}


def picture(kind="PNG", size=(2, 1)):
    file = io.BytesIO()
    PIL.Image.new("L", size, 255).save(file, kind)
    return file.getvalue()


def form(*files, options=b""):
    """Return a multipart body with a part named `image` for each file."""
    file = b'name="image"; filename="a.png"'
    parts = [(file, content) for content in files]
    if options:
        parts.append((b'name="options"', options))
    return b"".join(
        b"--cut\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % part
        for part in parts
    ) + (b"--cut--\r\n")


PICTURES = "/api/v1/models/pictures/predict"
FORM = {"Content-Type": "multipart/form-data; boundary=cut"}
TOKENS = "/api/v1/models/tokens/predict"
ORDERS = "/api/v1/models/orders/predict"
ORDER = {"placed": "2026-11-20T10:30:00Z"}

TRIAL = "/api/v1/models/trial/predict"
ASTRAY = "/api/v1/models/astray/predict"

CASES = [
    Case("a row that only the canary refuses", 200, path=TRIAL, says='"version":"1"'),
    Case(
        "rows that only the canary refuses",
        200,
        path=f"{TRIAL}/batch",
        body=rows(ROW, ROW),
        says='"version":"1"',
    ),
    Case(
        "an explanation that only the canary refuses",
        200,
        path="/api/v1/models/trial/explain",
        says='"version":"1"',
    ),
    Case(
        "a row that canary and default refuse",
        400,
        path=TRIAL,
        body=rows({"width": 7.0}),
        code="INVALID_INPUT",
        says="depth",
    ),
    Case("a canary that has gone", 503, path=ASTRAY, code="MODEL_UNAVAILABLE"),
    Case(
        "an image",
        200,
        path=PICTURES,
        body=picture(),
        headers={"Content-Type": "image/png"},
        says='"dark"',
    ),
    Case(
        "a form of images",
        200,
        path=PICTURES,
        body=form(picture(), picture("JPEG", (40, 30)), options=b'{"top_k": 2}'),
        headers=FORM,
        says="scores",
    ),
    Case(
        "images in JSON",
        200,
        path=PICTURES,
        body=rows({"b64": base64.b64encode(picture()).decode()}),
        says='"dark"',
    ),
    Case("an image as numbers", 200, path=PICTURES, body=rows([[0.5, 0.5]])),
    Case(
        "a broken image",
        400,
        path=PICTURES,
        body=form(picture(), picture()[:30]),
        headers=FORM,
        code="INVALID_INPUT",
        says='"index":1,"field":"image"',
    ),
    Case(
        "broken images apart",
        200,
        path=PICTURES + "/batch",
        body=form(picture()[:30], picture(), options=b'{"return_errors":"individual"}'),
        headers=FORM,
        says='"index":0',
    ),
    Case(
        "too many pixels",
        413,
        path=PICTURES,
        body=picture(size=(5000, 5000)),
        headers={"Content-Type": "image/png"},
        code="TOO_LARGE",
    ),
    Case(
        "too many images",
        413,
        path=PICTURES,
        body=form(*[picture()] * 4),
        headers=FORM,
        code="TOO_LARGE",
    ),
    Case("a cut-off form", 400, path=PICTURES, body=b"--cut\r\n", headers=FORM),
    Case(
        "an image for another model",
        415,
        body=picture(),
        headers={"Content-Type": "image/png"},
        code="UNSUPPORTED_MEDIA_TYPE",
    ),
    Case(
        "another kind of image for another model",
        415,
        body=b"GIF89a",
        headers={"Content-Type": "image/gif"},
        code="UNSUPPORTED_MEDIA_TYPE",
        says="Models that take images",
    ),
    Case(
        "another kind of image",
        415,
        path=PICTURES,
        body=b"GIF89a",
        headers={"Content-Type": "image/gif"},
        code="UNSUPPORTED_MEDIA_TYPE",
        says="PNG or JPEG",
    ),
    Case(
        "over-long plain text",
        422,
        path="/api/v1/models/texts/predict",
        body=b"x" * 11,
        headers={"Content-Type": "text/plain; charset=utf-8"},
        says="text",
    ),
    Case(
        "ragged tensors",
        400,
        path=TOKENS,
        body=rows({"ids": [1, 2], "mask": [1, [1]]}),
        code="INVALID_INPUT",
        says='"mask[1]"',
    ),
    Case(
        "a missing tensor",
        400,
        path=TOKENS,
        body=rows({"ids": [1, 2]}),
        code="INVALID_INPUT",
        says='"mask"',
    ),
    Case(
        "a bad time",
        400,
        path=ORDERS,
        body=rows({"placed": "soon"}),
        code="INVALID_INPUT",
        says="ISO 8601",
    ),
    Case(
        "bad bytes",
        400,
        path=ORDERS,
        body=rows(ORDER | {"receipt": "?"}),
        code="INVALID_INPUT",
        says="base64",
    ),
    Case(
        "an unknown parameter",
        400,
        path=ORDERS,
        body=rows(ORDER) | {"parameters": {"limit": 1}},
        code="INVALID_INPUT",
        says="parameters.limit",
    ),
    Case(
        "a mistyped parameter",
        400,
        path=ORDERS,
        body=rows(ORDER) | {"parameters": {"threshold": "high"}},
        code="INVALID_INPUT",
        says="parameters.threshold",
    ),
    Case(
        "every kind of value",
        503,
        path=ORDERS,
        body=rows(ORDER | {"receipt": "aGk=", "items": [1, {"a": None}]})
        | {"parameters": {"threshold": 1}},
        code="MODEL_UNAVAILABLE",
    ),
    Case("success", 200, says='"large"'),
    Case("low confidence", 200, body=rows({"width": 5, "height": 5.1}), says="true"),
    Case("site default", 200, path="/api/v1/predict", says="sizes"),
    Case(
        "model in body",
        200,
        path="/api/v1/predict",
        body=rows(ROW) | {"model": "sizes"},
    ),
    Case("inputs", 200, body={"inputs": [ROW]}),
    Case("single", 200, body={"inputs": ROW}, says='"prediction"'),
    Case("positional", 200, body=rows([7.0, 5.0])),
    Case("top k", 200, body=rows(ROW) | {"options": {"top_k": 2}}, says="scores"),
    Case("version in path", 200, path="/api/v1/models/sizes/versions/1/predict"),
    Case("alias in path", 200, path="/api/v1/models/sizes/versions/champion/predict"),
    Case("version in header", 200, headers={"X-Model-Version": "1"}),
    Case(
        "version in accept",
        200,
        headers={"Accept": "application/vnd.modelyard.v1+json; model-version=1"},
    ),
    Case("sticky", 200, headers={"X-Sticky-Key": "me"}),
    Case("x-api-key", 200, key=None, headers={"X-API-Key": "{key}"}),
    Case(
        "x-api-key beside what is for a proxy",
        200,
        key=None,
        headers={"Authorization": "Basic eDp5", "X-API-Key": "{key}"},
    ),
    Case("batch", 200, path=BATCH, body=rows(*[ROW] * 5)),
    Case(
        "batch size", 200, path=BATCH, body=rows(ROW) | {"options": {"batch_size": 1}}
    ),
    Case(
        "individual",
        200,
        path=BATCH,
        body=rows(ROW, {"width": -1, "height": 1}, {"width": "x", "height": 1})
        | {"options": {"return_errors": "individual"}},
        says='"index":2',
    ),
    Case("explain", 200, path=EXPLAIN, says="attribution"),
    Case(
        "explain with predict", 200, path=PREDICT + "?explain=true", says="base_value"
    ),
    Case("explanation not asked for", 200, path=PREDICT + "?explain=false"),
    *(
        Case(
            f"explain{value}",
            400,
            path=f"{path}?explain{value}",
            code="INVALID_INPUT",
            says="`explain` in the query must be true or false",
        )
        for path in (PREDICT, BATCH)
        for value in ("=maybe", "=", "=true&explain=false")
    ),
    Case(
        "whole numbers written as floats",
        200,
        path=BATCH,
        body=rows(ROW) | {"options": {"timeout_ms": 8500.0, "batch_size": 1.0}},
    ),
    Case(
        "a part of an integer",
        400,
        body=rows(ROW) | {"options": {"timeout_ms": 85.5}},
        code="INVALID_INPUT",
        says="options.timeout_ms",
    ),
    Case(
        "explain in full",
        200,
        path=EXPLAIN,
        body=rows(ROW) | {"options": {"level": "full", "seed": 1}},
        says="additivity_residual",
    ),
    Case("plot", 200, path=EXPLAIN, headers={"Accept": "image/svg+xml"}, says="<svg"),
    Case("embed", 200, path=EMBED, says='"dimension":2'),
    Case("embed version", 200, path="/api/v1/models/vectors/versions/1/embed"),
    Case(
        "embed in base64",
        200,
        path=EMBED,
        body=rows(ROW) | {"options": {"encoding_format": "base64", "normalize": True}},
        says='"embeddings":["',
    ),
    Case(
        "embed another task",
        400,
        path="/api/v1/models/sizes/embed",
        code="INVALID_INPUT",
        says="predict",
    ),
    Case(
        "embed in an unknown format",
        400,
        path=EMBED,
        body=rows(ROW) | {"options": {"encoding_format": "hex"}},
        code="INVALID_INPUT",
    ),
    Case(
        "invocations of split",
        200,
        path=INVOCATIONS,
        body={"dataframe_split": {"columns": ["height", "width"], "data": [[5, 7]]}},
        says='{"predictions":[[',
    ),
    Case(
        "invocations of records",
        200,
        path=INVOCATIONS,
        body={"dataframe_records": [ROW, ROW | {"more": 1}]},
    ),
    Case("invocations of inputs", 200, path=INVOCATIONS, body={"inputs": [[7, 5]]}),
    Case(
        "invocations of CSV",
        200,
        path=INVOCATIONS,
        body=b"width,height\n7,5\n",
        headers={"Content-Type": "text/csv"},
    ),
    Case(
        "invocations of a version",
        200,
        path="/api/v1/models/sizes/versions/champion/invocations",
        body={"inputs": [[7, 5]]},
    ),
    Case(
        "invocations with a bad value",
        400,
        path=INVOCATIONS,
        body={"dataframe_records": [{"width": "wide", "height": 1}]},
        says='{"error_code":"BAD_REQUEST","message":"1 field is invalid: `width`',
    ),
    Case(
        "invocations without a key",
        401,
        path=INVOCATIONS,
        key=None,
        says='"error_code":"UNAUTHENTICATED","message":"There is no API key.',
    ),
    Case(
        "invocations of an unknown model",
        404,
        path="/api/v1/models/none/invocations",
        says='"error_code":"RESOURCE_DOES_NOT_EXIST"',
    ),
    Case(
        "invocations of another type",
        415,
        path=INVOCATIONS,
        headers={"Content-Type": "text/plain"},
        says='"error_code":"BAD_REQUEST"',
    ),
    Case("stream", 200, path=STREAM, body=SPELLING, says='"chunks":2'),
    Case(
        "stream of a version",
        200,
        path="/api/v1/models/speller/versions/champion/stream",
        body=SPELLING,
        says='id: 1\ndata: {"chunk":"i"}',
    ),
    Case(
        "stream of a model that does not",
        400,
        path="/api/v1/models/sizes/stream",
        code="INVALID_INPUT",
        says="Call predict",
    ),
    Case("stream without a key", 401, path=STREAM, key=None, code="UNAUTHENTICATED"),
    Case(
        "stream of an engine that is away",
        503,
        path="/api/v1/models/away/stream",
        code="MODEL_UNAVAILABLE",
    ),
    Case("stream by GET", 405, path=STREAM, method="GET", code="METHOD_NOT_ALLOWED"),
    Case("no key", 401, key=None, code="UNAUTHENTICATED", says='"reason":"missing"'),
    Case(
        "wrong key",
        401,
        key="my_live_nonsense",
        code="UNAUTHENTICATED",
        says='"reason":"malformed"',
    ),
    Case(
        "revoked key",
        401,
        key="revoked",
        code="UNAUTHENTICATED",
        says='"reason":"revoked"',
    ),
    Case(
        "expired key",
        401,
        key="expired",
        code="UNAUTHENTICATED",
        says='"reason":"expired"',
    ),
    Case("wrong scope", 403, key="read_only", code="FORBIDDEN"),
    Case(
        "wrong scope to explain",
        403,
        path=EXPLAIN,
        key="predict_only",
        code="FORBIDDEN",
    ),
    Case("unknown model", 404, path="/api/v1/models/none/predict", code="NOT_FOUND"),
    Case("hidden model", 404, key="narrow", code="NOT_FOUND"),
    Case("unknown version", 404, headers={"X-Model-Version": "9"}, code="NOT_FOUND"),
    Case("wrong method", 405, method="GET", code="METHOD_NOT_ALLOWED"),
    Case("not acceptable", 406, headers={"Accept": "text/html"}, code="NOT_ACCEPTABLE"),
    Case("not JSON", 400, body=b"{", code="INVALID_JSON"),
    Case("empty body", 400, body=b"", code="INVALID_JSON"),
    Case(
        "a literal NaN",
        400,
        body=b'{"instances": [{"width": NaN, "height": 1}]}',
        code="INVALID_JSON",
    ),
    Case("empty list", 400, body=rows(), code="INVALID_INPUT", says="instances"),
    Case(
        "missing column",
        400,
        body=rows({"width": 1}),
        code="INVALID_INPUT",
        says="height",
    ),
    Case(
        "extra column", 400, body=rows(ROW | {"x": 1}), code="INVALID_INPUT", says='"x"'
    ),
    Case(
        "mistyped column",
        400,
        body=rows(ROW, ROW | {"width": "wide"}),
        code="INVALID_INPUT",
        says="width",
    ),
    Case(
        "ragged rows",
        400,
        body=rows([1.0, 2.0], [1.0]),
        code="INVALID_INPUT",
        says="height",
    ),
    Case(
        "unknown option",
        400,
        body=rows(ROW) | {"options": {"k": 1}},
        code="INVALID_INPUT",
        says="options.k",
    ),
    Case("bad header", 400, headers={"X-Deadline-Ms": "soon"}, code="INVALID_HEADER"),
    Case(
        "out of range",
        422,
        body=rows({"width": 101, "height": 1}),
        code="UNPROCESSABLE",
    ),
    Case(
        "infinite",
        422,
        body=b'{"instances": [{"width": 1, "height": 1e999}]}',
        code="UNPROCESSABLE",
        says="height",
    ),
    Case(
        "over-long text",
        422,
        path="/api/v1/models/texts/predict",
        body=rows({"text": "x" * 11}),
        code="UNPROCESSABLE",
        says="text",
    ),
    Case("too many rows", 413, body=rows(*[ROW] * 4), code="TOO_LARGE"),
    Case("too many bytes", 413, body=b" " * (2 * 1024 * 1024 + 1), code="TOO_LARGE"),
    Case(
        "other media type",
        415,
        headers={"Content-Type": "text/csv"},
        code="UNSUPPORTED_MEDIA_TYPE",
    ),
    Case(
        "over rate",
        429,
        key="poor",
        times=2,
        code="RATE_LIMIT_EXCEEDED",
        says="sustained",
    ),
    Case(
        "over quota",
        429,
        key="spent",
        body=rows(ROW, ROW),
        times=2,
        code="QUOTA_EXCEEDED",
        says="day",
    ),
    Case(
        "not loaded",
        503,
        path="/api/v1/models/texts/predict",
        body=rows({"text": "a"}),
        code="MODEL_UNAVAILABLE",
    ),
    Case(
        "engine down", 503, path="/api/v1/models/away/predict", code="MODEL_UNAVAILABLE"
    ),
    Case(
        "not served yet",
        503,
        path="/api/v1/models/waiting/predict",
        code="MODEL_UNAVAILABLE",
    ),
    Case(
        "slow model",
        504,
        path="/api/v1/models/slow/predict",
        headers={"X-Deadline-Ms": "50"},
        code="INFERENCE_TIMEOUT",
    ),
    Case(
        "RFC 9457",
        404,
        path="/api/v1/models/none/predict",
        headers={"Accept": "application/problem+json"},
        code="NOT_FOUND",
    ),
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return export_model(tmp_path_factory.mktemp("sizes"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory, artifact):
    from inference.installation.home import Home

    home = Home(tmp_path_factory.mktemp("e"))
    home.prepare()
    speller = save_speller(tmp_path_factory.mktemp("speller") / "model")
    running = RunningEngine(home, artifact, speller)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def keys(home, engine):
    stuck = StuckEngine(home.run / "stuck.sock")
    yield publish(home, engine=engine.path, stuck=stuck.path)
    stuck.stop()
    driver.current().close()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def comparable_body(self, *, about=True):
        """Return the body without the id and the times, which always differ."""
        if "event-stream" in self.headers["content-type"]:
            return re.sub(rb'"(total_ms|request_id)":[^,}]*', b"", self.body)
        if "json" not in self.headers["content-type"]:
            return self.body
        body = json.loads(self.body)
        for part in (body, body.get("error", {})):
            for name in ("request_id", "timestamp"):
                if name in part:
                    assert part[name]
                    part[name] = "…"
        if about and "retry_after_s" in body.get("error", {}):
            body["error"]["retry_after_s"] = self.about(body["error"]["retry_after_s"])
        return body

    def header(self, name, *, about=True):
        value = self.headers.get(name)
        if name != "retry-after" or value is None:
            return value
        return self.about(int(value)) if about else int(value)

    @staticmethod
    def about(seconds):
        """Allow for the seconds between the calls to the two fronts."""
        return pytest.approx(seconds, abs=5, rel=0.001)


def headers_of(case, keys):
    headers = {"Content-Type": "application/json"} | case.headers
    headers = {name: value.format(key=keys.key) for name, value in headers.items()}
    if case.key is not None:
        headers["Authorization"] = f"Bearer {getattr(keys, case.key, case.key)}"
    return headers


def ask_django(case, headers):
    content_type = headers.pop("Content-Type")
    client = APIClient(headers=headers)
    for _ in range(case.times):
        answer = client.generic(case.method, case.path, case.content, content_type)
    lower = {name.lower(): value for name, value in answer.headers.items()}
    content = b"".join(answer) if answer.streaming else answer.content
    return Reply(answer.status_code, lower, content)


def ask_both(case, home, keys):
    """Ask both fronts within one minute, because rates begin anew with the next."""
    while True:
        minute = time.time() // 60
        by_django = ask_django(case, headers_of(case, keys))
        # Units that one front leased would be missing in the other's headers.
        Lease.objects.all().delete()
        QuotaCounter.objects.all().delete()
        status, headers, body = ask_gateway(
            home,
            method=case.method,
            path=case.path,
            headers=headers_of(case, keys),
            content=case.content,
            times=case.times,
        )
        if time.time() // 60 == minute:
            return by_django, Reply(status, headers, body)


@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_fronts_give_the_same_answer(case, home, keys):
    if case.name == "plot":
        # The process for plots takes seconds to start, on a busy machine too many.
        plots.draw_waterfall(
            names=["x"], row=[1.0], values=[1.0], base_value=0.0, title="x"
        )
    by_django, by_gateway = ask_both(case, home, keys)

    for reply in (by_gateway, by_django):
        assert reply.status == case.status, reply.body
        assert case.says in reply.body.decode()
        if case.code:
            error = json.loads(reply.body)
            assert error.get("error", error)["code"] == case.code
    assert by_django.comparable_body() == by_gateway.comparable_body(about=False)
    for name in CONTRACT_HEADERS:
        assert by_django.header(name) == by_gateway.header(name, about=False), name
    for name in PRESENT_HEADERS:
        assert (name in by_django.headers) == (name in by_gateway.headers), name
    assert by_django.headers["x-request-id"]
