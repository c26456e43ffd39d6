"""Test that a caller sees only the models that its key may call."""

import json
from datetime import UTC, datetime

import pytest
from django.utils import timezone

from inference.api import driver
from inference.api.serializers import ModelSerializer, ModelSummarySerializer
from inference.controller import publishing
from inference.errors.api_error import ApiError, ErrorCode
from inference.jobs import version_choice
from inference.models import ServingRoute
from registry.models import Deprecation
from tests.factories import issue_key
from tests.factories_registry import (
    AliasFactory,
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)

pytestmark = pytest.mark.django_db

NO_END = {"sunset_at": None, "use_instead": None}


@pytest.fixture
def route(home):
    model = RegisteredModelFactory(name="sizes", description="Tells sizes apart.")
    route = RouteFactory(
        default_version=ModelVersionFactory(registered_model=model, version=3),
        input_rules={"width": {"min": 0, "max": 10}},
    )
    AliasFactory(version=route.default_version, name="champion")
    ModelVersionFactory(registered_model=model, version=2, published=True)
    ServingRoute.objects.create(model="sizes", default_version=3)
    ModelVersionFactory(
        registered_model=RegisteredModelFactory(name="other"), published=True
    )
    yield route
    driver.current().close()


def get(client, path, **key):
    issued = issue_key(**key)
    publishing.mark_changed()
    publishing.publish(now=timezone.now())
    return client.get(path, headers={"Authorization": f"Bearer {issued.token}"})


def test_the_list_holds_every_callable_model(client, route):
    answer = get(client, "/api/v1/models")

    assert answer.status_code == 200
    assert answer.json()["next_cursor"] is None
    assert [model["name"] for model in answer.json()["data"]] == ["other", "sizes"]
    assert "X-RateLimit-Limit" in answer.headers


def test_the_document_names_what_is_answered(client, route):
    models = get(client, "/api/v1/models").json()["data"]
    model = get(client, "/api/v1/models/sizes").json()

    assert models[0].keys() == ModelSummarySerializer().fields.keys()
    assert model.keys() == ModelSerializer().fields.keys()


def test_a_narrow_key_sees_only_its_models(client, route):
    answer = get(client, "/api/v1/models", allowed_models=["other"])

    assert [model["name"] for model in answer.json()["data"]] == ["other"]


def test_a_model_tells_all_that_a_caller_needs(client, route):
    answer = get(client, "/api/v1/models/sizes")

    assert answer.json() == {
        "name": "sizes",
        "description": "Tells sizes apart.",
        "task": "classification",
        "default_version": "3",
        "versions": [
            {"version": "3", "aliases": ["champion"], "deprecated_at": None, **NO_END},
            {"version": "2", "aliases": [], "deprecated_at": None, **NO_END},
        ],
        "signature": {
            "layout": "matrix",
            "labels": ["small", "large"],
            "columns": [
                {"name": "width", "type": "float32", "required": True},
                {"name": "height", "type": "float32", "required": True},
            ],
        },
        "rules": {"width": {"min": 0.0, "max": 10.0}},
        "example": [{"width": 1.0, "height": 2.0}],
        "explainable": False,
        "limits": {
            "max_predict_rows": 100,
            "max_batch_rows": 1000,
            "max_job_rows": 1_000_000,
        },
    }


@pytest.mark.parametrize("path", ["/api/v1/models/sizes", "/api/v1/models/none"])
def test_a_model_the_key_may_not_see_looks_like_one_that_is_not_there(
    client, route, path
):
    answer = get(client, path, allowed_models=["other"])

    assert answer.status_code == 404
    assert json.loads(answer.content)["error"]["message"] == "There is no such model."


def test_the_scope_is_needed(client, route):
    answer = get(client, "/api/v1/models", scopes=["predict"])

    assert answer.status_code == 403
    assert json.loads(answer.content)["error"]["code"] == "FORBIDDEN"


def test_a_key_is_needed(client, route):
    answer = client.get("/api/v1/models")

    assert answer.status_code == 401
    assert json.loads(answer.content)["error"]["code"] == "UNAUTHENTICATED"


def test_a_version_tells_its_announced_end(client, route):
    Deprecation.objects.create(
        registered_model=route.registered_model,
        version=route.default_version,
        deprecated_at=datetime(2026, 11, 1, tzinfo=UTC),
        ends_at=datetime(2027, 2, 1, tzinfo=UTC),
        use_instead="Use version 2.",
    )

    newest, older = get(client, "/api/v1/models/sizes").json()["versions"]

    assert newest["deprecated_at"] == "2026-11-01T00:00:00+00:00"
    assert newest["sunset_at"] == "2027-02-01T00:00:00+00:00"
    assert newest["use_instead"] == "Use version 2."
    assert older["sunset_at"] is None


def test_new_jobs_end_with_the_version_that_they_name_or_with_the_model(client, route):
    ended = datetime(2026, 11, 1, tzinfo=UTC)
    row = Deprecation.objects.create(
        registered_model=route.registered_model,
        version=route.default_version,
        deprecated_at=ended,
        ends_at=ended,
        use_instead="Use version 2.",
    )
    get(client, "/api/v1/models")

    def choose(version):
        return version_choice.choose(
            "sizes", version=version, sticky_key="k", key_id="", allowed_models=()
        )

    assert choose(None).version == 3
    assert choose("2").version == 2
    for named in ("3", "champion"):
        with pytest.raises(ApiError, match="Use version 2") as refused:
            choose(named)
        assert refused.value.code is ErrorCode.GONE
    row.version = None
    row.save()
    get(client, "/api/v1/models")
    with pytest.raises(ApiError, match="Use version 2"):
        choose(None)
