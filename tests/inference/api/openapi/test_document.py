import json
import re
from datetime import timedelta

import jsonschema
import msgspec
import pytest
import yaml
from django.utils import timezone
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from openapi_spec_validator import OpenAPIV31SpecValidator

from inference.api.openapi import document as documents
from inference.api.openapi import shared_schemas
from inference.api.openapi.answer_examples import EXAMPLES
from inference.api.openapi.published import visible_models
from inference.api.openapi.typed_operations import component_prefixes
from inference.codecs.decoding import InstanceDecoder
from inference.controller import publishing
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.errors.advice import ADVICE
from inference.errors.api_error import STATUS, ErrorCode
from registry.models import Deprecation
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)

pytestmark = pytest.mark.django_db

METADATA = {
    "task": "classification",
    "background": "background.json",
    "columns": ["mean radius", "mean texture"],
    "labels": ["malignant", "benign"],
    "rules": {"mean radius": {"min": 0, "max": 50}},
}
EXAMPLE = [
    {"mean radius": 17.99, "mean texture": 10.38},
    {"mean radius": 20.57, "mean texture": 17.77},
    {"mean radius": 19.69, "mean texture": 21.25},
]


def _route(name="breast-cancer", **kwargs):
    model = RegisteredModelFactory.create(
        name=name, **{"public": True, **kwargs.pop("model", {})}
    )
    version = ModelVersionFactory.create(
        registered_model=model,
        **{"metadata": METADATA, "input_example": EXAMPLE, **kwargs.pop("version", {})},
    )
    return RouteFactory.create(
        registered_model=model, default_version=version, **kwargs
    )


@pytest.fixture(autouse=True)
def _publishes(publish):
    """Give every test its own snapshot."""


def _publish():
    publishing.mark_changed()
    publishing.publish(now=timezone.now())


def _document():
    _publish()
    return documents.with_models(visible_models(None), server="http://localhost")


def _resolve(document, schema):
    """Return a validator for a schema that refers to the document's components."""
    return jsonschema.Draft202012Validator(
        {**schema, "components": document["components"]}
    )


def test_the_document_is_valid_openapi_3_1():
    _route()
    _route("strange {name}/x")

    document = _document()

    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")


def test_the_document_is_valid_without_any_model():
    OpenAPIV31SpecValidator(_document()).validate()


def test_a_published_model_has_typed_columns():
    _route()

    schemas = _document()["components"]["schemas"]

    assert schemas["BreastCancerInstance"] == {
        "type": "object",
        "properties": {
            "mean radius": {
                "type": "number",
                "minimum": 0,
                "maximum": 50,
                "description": "Column 1: float32.",
            },
            "mean texture": {"type": "number", "description": "Column 2: float32."},
        },
        "required": ["mean radius", "mean texture"],
        "additionalProperties": False,
    }


def test_the_operations_of_a_model_that_ends_are_deprecated():
    route = _route()
    _route(name="other")
    Deprecation.objects.create(
        registered_model=route.registered_model,
        ends_at=timezone.now() + timedelta(days=60),
        use_instead="Use other.",
    )

    paths = _document()["paths"]

    operation = paths["/api/v1/models/breast-cancer/predict"]["post"]
    assert operation["deprecated"] is True
    assert "from then on calls get 410. Use other." in operation["description"]
    assert "deprecated" not in paths["/api/v1/models/other/predict"]["post"]


def test_an_explanation_may_be_asked_for_as_a_drawing():
    _route()

    operation = _document()["paths"]["/api/v1/models/breast-cancer/explain"]["post"]

    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "image/svg+xml",
    }


def test_the_scoring_protocol_has_mlflows_errors():
    operation = _document()["paths"]["/api/v1/models/{model}/invocations"]["post"]

    content = operation["responses"]["400"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/MlflowError"}
    assert set(operation["requestBody"]["content"]) == {"application/json", "text/csv"}


def _examples(document, content):
    """Return the examples of a body or of an answer."""
    examples = list(content.get("examples", {}).values())
    for index, example in enumerate(examples):
        if "$ref" in example:
            name = example["$ref"].rpartition("/")[2]
            examples[index] = document["components"]["examples"][name]
    values = [example["value"] for example in examples]
    return [*values, content["example"]] if "example" in content else values


def test_every_example_decodes_and_fits_its_own_schema():
    _route()
    _route("plain", version={"metadata": {}, "input_example": [[1.0, 2.0], [3.0, 4.0]]})

    document = _document()

    signatures = {
        model.name: model.described.signature for model in visible_models(None)
    }
    typed = 0
    for path, operations in document["paths"].items():
        signature = signatures.get(operations.get("post", {"tags": [""]})["tags"][0])
        if signature is None:
            continue
        body = operations["post"]["requestBody"]["content"]["application/json"]
        [value] = _examples(document, body)
        rows = InstanceDecoder(signature).decode_request(msgspec.json.encode(value))
        assert rows.rows == 2, path
        _resolve(document, body["schema"]).validate(value)
        answer = operations["post"]["responses"]["200"]["content"]["application/json"]
        [example] = _examples(document, answer)
        _resolve(document, answer["schema"]).validate(example)
        typed += 1
    assert typed == 5  # predict, batch, explain; predict, batch


def test_no_example_stands_where_it_would_not_fit_every_model():
    _route()

    document = _document()

    fitting = 0
    for path, operations in document["paths"].items():
        if path.startswith(("/api/v1/models/{model}", "/v2/")):
            body = operations.get("post", {}).get("requestBody", {"content": {}})
            assert not any(
                _examples(document, content) for content in body["content"].values()
            ), path
        elif path in ("/api/v1/predict", "/api/v1/predict/batch"):
            content = operations["post"]["requestBody"]["content"]["application/json"]
            [value] = _examples(document, content)
            assert value["model"] == "breast-cancer"
            _resolve(document, content["schema"]).validate(value)
            fitting += 1
    assert fitting == 2


def test_answers_that_are_no_predictions_have_an_example_that_fits():
    document = _document()

    shown = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status[0] != "2" or "application/json" not in response["content"]:
                    continue
                content = response["content"]["application/json"]
                for example in _examples(document, content):
                    _resolve(document, content["schema"]).validate(example)
                    shown.add(operation["operationId"])
    gets = {
        operations["get"]["operationId"]
        for path, operations in document["paths"].items()
        if "get" in operations and path not in ("/healthz", "/readyz")
    }
    assert shown == set(EXAMPLES)
    assert gets <= shown


def _properties(schema, owner=""):
    if isinstance(schema, list):
        for part in schema:
            yield from _properties(part, owner)
    elif isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield f"{owner}.{name}", part
            yield from _properties(part, f"{owner}.{name}")
        for keyword in ("items", "anyOf", "oneOf", "allOf"):
            yield from _properties(schema.get(keyword), owner)


def test_every_property_is_described():
    _route()

    properties = [
        pair
        for name, schema in _document()["components"]["schemas"].items()
        for pair in _properties(schema, name)
    ]

    assert len(properties) > 250
    assert [name for name, schema in properties if "description" not in schema] == []


def test_what_is_refused_is_closed_and_what_may_grow_is_open():
    _route()

    schemas = _document()["components"]["schemas"]

    closed = {
        name for name, it in schemas.items() if it.get("additionalProperties") is False
    }
    # These ignore unknown members: uploads, and the other two protocols.
    ignoring = {"CreateUploadRequest", "InvocationsRequest", "OipRequest"}
    asking = {name for name in schemas if name.endswith(("Request", "Options", "Form"))}
    assert closed - {"BreastCancerInstance"} == asking - ignoring


def test_no_schema_says_anything_or_null():
    _route()

    text = json.dumps(_document())

    assert '[{}, {"type": "null"}]' not in text


def test_operations_are_named_in_one_way_and_once():
    _route()

    names = [
        operation["operationId"]
        for operations in _document()["paths"].values()
        for operation in operations.values()
    ]

    assert all(re.fullmatch("[a-z][A-Za-z0-9]*", name) for name in names)
    assert len(names) == len(set(names))
    assert "breastCancerPredictBatch" in names


def test_no_component_says_request_twice():
    assert not any("RequestRequest" in name for name in _document()["components"])


def test_names_of_models_never_meet_names_that_all_share():
    # Names like those of shared schemas, such as "SubmitJobRequest".
    names = ["predict", "explain", "predict-default-model", "submit", "embed", "1st"]

    prefixes = component_prefixes(names)

    typed = {
        f"{prefix}{kind}{part}"
        for prefix in prefixes.values()
        for kind in ("Predict", "PredictBatch", "Explain", "Embed")
        for part in ("Request", "Answer")
    }
    assert len(typed) == 8 * len(names)
    assert typed.isdisjoint(shared_schemas.SCHEMAS)
    assert all(prefix[0].isalpha() for prefix in prefixes.values())


@pytest.mark.parametrize(
    ("metadata", "works"),
    [
        ({}, True),
        ({"background": None}, False),
        ({"task": "embedding"}, False),
    ],
)
def test_explanations_are_offered_where_they_work(metadata, works):
    given = {name: it for name, it in (METADATA | metadata).items() if it}
    _route(version={"metadata": given})

    document = _document()

    assert ("/api/v1/models/breast-cancer/explain" in document["paths"]) == works
    predict = document["paths"]["/api/v1/models/breast-cancer/predict"]["post"]
    asked = {"$ref": "#/components/parameters/Explain"}
    assert (asked in predict["parameters"]) == works


def test_the_server_is_the_one_that_was_asked(client):
    _publish()

    document = client.get("/api/schema/", headers={"Host": "localhost"}).json()

    assert document["servers"] == [{"url": "http://localhost"}]


def test_the_views_are_described_without_a_complaint(capsys):
    reset_generator_stats()
    documents.general.cache_clear()

    documents.general()

    assert not GENERATOR_STATS
    assert capsys.readouterr().err == ""


def test_rules_of_the_route_are_documented():
    _route(input_rules={"mean radius": {"min": 2, "max": 9}})

    instance = _document()["components"]["schemas"]["BreastCancerInstance"]

    documented = instance["properties"]["mean radius"]
    assert (documented["minimum"], documented["maximum"]) == (2, 9)


def test_an_example_that_breaks_a_rule_of_the_route_is_left_out():
    _route(input_rules={"mean radius": {"max": 1}})

    document = _document()

    operation = document["paths"]["/api/v1/models/breast-cancer/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert list(examples) == ["made_up"]


def test_a_model_without_route_is_documented_by_its_published_version():
    version = ModelVersionFactory.create(
        registered_model__name="solo", version=7, published=True
    )

    paths = _document()["paths"]

    assert version.published
    assert "/api/v1/models/solo/versions/7/predict" in paths
    assert "/api/v1/models/solo/predict" not in paths


def test_an_unreadable_signature_hides_only_its_own_model():
    _route()
    _route("broken", version={"signature": {}})
    _publish()

    names = [model.name for model in visible_models(None)]

    assert names == ["breast-cancer"]


def test_every_operation_has_the_one_error_shape_and_both_ways_to_send_a_key():
    _route()

    document = _document()

    for path, operations in document["paths"].items():
        # The scoring protocol's clients expect errors of another shape.
        if not path.startswith("/api/v1/") or path.endswith("/invocations"):
            continue
        if path.endswith("/content"):  # its signature is its key
            continue
        for operation in operations.values():
            assert operation["security"] == [{"bearer": []}, {"apiKey": []}]
            for status in ("401", "403", "404", "429", "500", "503"):
                reference = operation["responses"][status]["$ref"]
                assert reference == f"#/components/responses/Error{status}"
    for response in document["components"]["responses"].values():
        schema = response["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}


def test_every_error_code_is_explained_and_documented():
    document = _document()

    examples = {
        code
        for response in document["components"]["responses"].values()
        for code in response["content"]["application/json"]["examples"]
    }

    assert set(ADVICE) == set(ErrorCode)
    # Errors that no documented request can cause: wrong methods, too long heads.
    unmet = {code.value for code in ErrorCode if STATUS[code] in (405, 431)}
    assert examples == {code.value for code in ErrorCode} - unmet


def test_nothing_is_promised_that_no_code_answers():
    """Readers would rely on a documented Idempotency-Key."""
    text = json.dumps(_document()) + json.dumps([a.when for a in ADVICE.values()])

    assert "idempotency" not in text.lower()


def test_similar_names_get_components_of_their_own():
    prefixes = component_prefixes(["breast-cancer", "breast_cancer", "???"])

    assert prefixes["breast-cancer"] == "BreastCancer"
    assert prefixes["breast_cancer"].startswith("BreastCancer")
    assert len(set(prefixes.values())) == 3


class TestWhoSeesWhat:
    @pytest.fixture(autouse=True)
    def _models(self):
        _route("open")
        _route("closed", model={"public": False})

    def _paths(self, client, **headers):
        _publish()
        response = client.get("/api/schema/?format=json", **headers)
        assert response.status_code == 200
        return {path for path in response.json()["paths"] if "{" not in path}

    def test_anonymous_readers_see_public_models_only(self, client):
        paths = self._paths(client)

        assert "/api/v1/models/open/predict" in paths
        assert "/api/v1/models/closed/predict" not in paths

    def test_a_key_shows_the_models_it_may_call(self, client):
        token = issue_key(allowed_models=["closed"]).token

        paths = self._paths(client, headers={"Authorization": f"Bearer {token}"})

        assert "/api/v1/models/closed/predict" in paths
        assert "/api/v1/models/open/predict" not in paths

    def test_a_key_without_the_scope_explain_sees_no_explain_operation(self, client):
        token = issue_key(scopes=["predict"]).token

        paths = self._paths(client, headers={"X-API-Key": token})

        assert "/api/v1/models/open/predict" in paths
        assert "/api/v1/models/open/explain" not in paths

    def test_a_wrong_key_is_refused(self, client):
        response = client.get("/api/schema/", headers={"X-API-Key": "my_live_wrong"})

        assert response.status_code == 401
        assert response.json()["error"]["code"] == "UNAUTHENTICATED"

    def test_staff_see_everything(self, client):
        client.force_login(UserFactory.create(is_staff=True))

        assert "/api/v1/models/closed/predict" in self._paths(client)

    def test_a_customers_person_sees_what_its_keys_may_call(self, client):
        person = UserFactory.create()
        customer = CustomerFactory.create()
        customer.members.add(person)
        issue_key(customer, allowed_models=["closed"])
        client.force_login(person)

        paths = self._paths(client)

        assert "/api/v1/models/closed/predict" in paths
        assert "/api/v1/models/open/predict" not in paths

    def test_a_change_shows_at_once_in_spite_of_the_cache(self, client):
        before = self._paths(client)
        _route("new")

        after = self._paths(client)

        assert "/api/v1/models/new/predict" not in before
        assert "/api/v1/models/new/predict" in after

    def test_a_document_of_public_models_costs_no_query(
        self, client, django_assert_num_queries
    ):
        self._paths(client)

        with django_assert_num_queries(0):
            client.get("/api/schema/")


class TestCaching:
    @pytest.fixture(autouse=True)
    def _models(self):
        _route("open")
        _publish()

    def test_a_reader_who_has_the_document_is_sent_nothing(self, client):
        etag = client.get("/api/schema/")["ETag"]

        again = client.get("/api/schema/", headers={"If-None-Match": etag})

        assert (again.status_code, again.content) == (304, b"")
        assert again["ETag"] == etag

    def test_a_change_gives_another_document(self, client):
        etag = client.get("/api/schema/")["ETag"]
        _route("new")
        _publish()

        changed = client.get("/api/schema/", headers={"If-None-Match": etag})

        assert changed.status_code == 200
        assert "/api/v1/models/new/predict" in changed.json()["paths"]

    def test_other_forms_servers_and_readers_have_other_tags(self, client):
        _route("closed", model={"public": False})
        _publish()
        token = issue_key().token
        asked = [
            {},
            {"Accept": "application/vnd.oai.openapi"},
            {"Host": "127.0.0.1"},
            {"X-API-Key": token},
        ]

        tags = {client.get("/api/schema/", headers=it)["ETag"] for it in asked}

        assert len(tags) == len(asked)

    def test_yaml_and_json_say_the_same(self, client):
        as_json = client.get("/api/schema/")
        as_yaml = client.get("/api/schema/?format=yaml")

        assert as_yaml["Content-Type"] == "application/vnd.oai.openapi"
        assert yaml.safe_load(as_yaml.content) == as_json.json()


class TestManyModels:
    @pytest.fixture(autouse=True)
    def _models(self, settings):
        settings.MODELYARD_DOCUMENTED_MODELS = 2
        for name in ("one", "two", "three & 1/2"):
            _route(name)
        _publish()

    def test_more_than_a_document_holds_leave_the_general_one(self, client):
        document = client.get("/api/schema/").json()

        assert "/api/v1/models/{model}/predict" in document["paths"]
        assert "/api/v1/models/one/predict" not in document["paths"]

    def test_each_has_a_document_of_its_own(self, client):
        document = client.get("/api/schema/", {"model": "three & 1/2"}).json()

        assert "/api/v1/models/three%20%26%201%2F2/predict" in document["paths"]
        assert "/api/v1/models/one/predict" not in document["paths"]

    def test_unknown_and_hidden_ones_are_not_found(self, client):
        _route("closed", model={"public": False})
        _publish()

        answers = [
            client.get("/api/schema/", {"model": name}) for name in ("none", "closed")
        ]

        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json()["error"]["code"] == "NOT_FOUND"

    @pytest.mark.parametrize("page", ["/docs/", "/docs/redoc/"])
    def test_the_pages_lead_to_them(self, client, page):
        before = client.get(page).content.decode()
        chosen = client.get(page, {"model": "three & 1/2"})

        assert '<option value="three &amp; 1/2">' in before
        script = chosen.context["script_url"] if page == "/docs/" else None
        text = client.get(script).content if script else chosen.content
        assert "model=three+%26+1%2F2" in text.decode("unicode_escape")

    def test_a_page_of_no_model_says_so(self, client):
        page = client.get("/docs/", {"model": "none"})

        assert page.status_code == 200
        assert "no model called" in page.content.decode()


def test_from_mlflow_reads_the_factory_signature():
    version = ModelVersionFactory.build(metadata=METADATA)

    signature = from_mlflow(version.signature, version.metadata)

    assert [column.name for column in signature.columns] == METADATA["columns"]


def test_a_model_that_embeds_has_an_operation_for_it():
    _route(version={"metadata": {"task": "embedding", "columns": METADATA["columns"]}})
    _route("labels")

    document = _document()

    operation = document["paths"]["/api/v1/models/breast-cancer/embed"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    answer = operation["responses"]["200"]["content"]["application/json"]
    for content in (body, answer):
        [example] = _examples(document, content)
        _resolve(document, content["schema"]).validate(example)
    assert "/api/v1/models/labels/embed" not in document["paths"]


def test_what_a_route_may_add_to_an_answer_is_documented():
    _route()

    operation = _document()["paths"]["/api/v1/models/breast-cancer/predict"]["post"]

    assert {"X-Cache", "X-Fallback", "RateLimit"} <= set(
        operation["responses"]["200"]["headers"]
    )


def test_every_operation_has_a_summary_a_tag_that_is_listed_and_its_errors():
    _route()

    document = _document()

    listed = {group["name"] for group in document["tags"]}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert set(operation["tags"]) <= listed, path
            refused = {status for status in operation["responses"] if status >= "4"}
            assert refused or path == "/healthz", path


def test_newcomers_find_models_before_accounts_and_probes():
    names = [group["name"] for group in _document()["tags"]]

    assert names == [
        "Models",
        "Uploads",
        "Jobs",
        "Feedback",
        "Account",
        "Open Inference Protocol",
        "Health",
    ]


def test_sending_an_announced_file_needs_no_key():
    operation = _document()["paths"]["/api/v1/uploads/{upload_id}/content"]["put"]

    assert operation["security"] == []
    assert "401" not in operation["responses"]


ENDING = {"Deprecation", "Sunset", "Link"}


def test_answers_about_a_model_may_say_that_it_ends():
    _route()
    document = _document()
    having = {
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if status[0] == "2" and response.get("headers", {}).keys() >= ENDING
    }

    assert document["components"]["headers"].keys() >= ENDING
    assert {"submitJob", "predict", "oipGetModel", "oipGetModelWithVersion"} <= having
    assert not having & {"getJob", "sendFeedback"}


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"score": 1}, True),
        ({"label": "a" * 200, "prediction": 1}, True),
        ({"label": "a" * 201, "prediction": "a"}, False),
        ({"label": "a", "prediction": "a" * 201}, False),
        ({"request_id": "a b", "score": 1}, False),
    ],
)
def test_feedback_is_described_as_it_is_read(changes, valid):
    document = _document()
    schema = document["components"]["schemas"]["FeedbackRequest"]

    given = {"request_id": "r-1"} | changes
    assert _resolve(document, schema).is_valid(given) == valid
    assert "only with `label`" in schema["properties"]["prediction"]["description"]
    assert "At least one of" in schema["description"]
