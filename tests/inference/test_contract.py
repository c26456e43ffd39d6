"""One contract, two fronts: the gateway and Django answer every request alike."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import Lease, QuotaCounter
from inference import front
from tests.inference.contract_fronts import ask_gateway
from tests.inference.contract_plant import (
    RunningEngine,
    StuckEngine,
    export_model,
    publish,
)

# What callers may rely on besides status and body; times are compared by presence.
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


@dataclass
class Case:
    """One or more equal requests; the last answer is the one that counts."""

    name: str
    status: int
    path: str = PREDICT
    body: Any = field(default_factory=lambda: {"instances": [ROW]})
    key: str | None = "key"
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    # Text that the body must hold, such as the name of the field at fault.
    says: str = ""
    times: int = 1
    method: str = "POST"

    @property
    def content(self) -> bytes:
        body = self.body
        return body if isinstance(body, bytes) else json.dumps(body).encode()


def rows(*values):
    return {"instances": list(values)}


CASES = [
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
    Case(
        "explain in full",
        200,
        path=EXPLAIN,
        body=rows(ROW) | {"options": {"level": "full", "seed": 1}},
        says="additivity_residual",
    ),
    Case("plot", 200, path=EXPLAIN, headers={"Accept": "image/svg+xml"}, says="<svg"),
    Case("no key", 401, key=None, code="UNAUTHENTICATED"),
    Case("wrong key", 401, key="my_live_nonsense", code="UNAUTHENTICATED"),
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
    Case("ragged rows", 400, body=rows([1.0, 2.0], [1.0]), code="INVALID_INPUT"),
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
    from inference.home import Home

    home = Home(tmp_path_factory.mktemp("e"))
    home.prepare()
    running = RunningEngine(home, artifact)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def keys(home, engine):
    stuck = StuckEngine(home.run / "stuck.sock")
    yield publish(home, engine=engine.path, stuck=stuck.path)
    stuck.stop()
    front.current().close()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def comparable_body(self):
        """Set aside what no two requests share: the id and the times."""
        if "json" not in self.headers["content-type"]:
            return self.body
        body = json.loads(self.body)
        for part in (body, body.get("error", {})):
            for name in ("request_id", "timestamp"):
                if name in part:
                    assert part[name]
                    part[name] = "…"
        return body


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
    return Reply(answer.status_code, lower, answer.content)


@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_fronts_give_the_same_answer(case, home, keys):
    by_django = ask_django(case, headers_of(case, keys))
    # Units that one front leased are missing in the other's headers.
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
    by_gateway = Reply(status, headers, body)

    for reply in (by_gateway, by_django):
        assert reply.status == case.status, reply.body
        assert case.says in reply.body.decode()
        if case.code:
            error = json.loads(reply.body)
            assert error.get("error", error)["code"] == case.code
    assert by_django.comparable_body() == by_gateway.comparable_body()
    for name in CONTRACT_HEADERS:
        assert by_django.headers.get(name) == by_gateway.headers.get(name), name
    for name in PRESENT_HEADERS:
        assert (name in by_django.headers) == (name in by_gateway.headers), name
    assert by_django.headers["x-request-id"]
