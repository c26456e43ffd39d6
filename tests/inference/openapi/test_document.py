import json

import jsonschema
import msgspec
import pytest
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats
from drf_spectacular.generators import SchemaGenerator
from openapi_spec_validator import OpenAPIV31SpecValidator

from inference.decoding import InstanceDecoder
from inference.engine.mlflow_signature import from_mlflow
from inference.error_advice import ADVICE
from inference.errors import ErrorCode
from inference.openapi.document import visible_models
from inference.openapi.typed_operations import component_prefixes
from tests.factories import CustomerFactory, UserFactory, issue_key
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)

pytestmark = pytest.mark.django_db

METADATA = {
    "task": "classification",
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


def _document():
    return SchemaGenerator().get_schema(request=None, public=True)


def _resolve(document, schema):
    """Check a value against a component, with the references of the document."""
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
            "mean radius": {"type": "number", "minimum": 0, "maximum": 50},
            "mean texture": {"type": "number"},
        },
        "required": ["mean radius", "mean texture"],
        "additionalProperties": False,
    }


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


def test_every_example_decodes_and_fits_its_own_schema():
    _route()
    _route("plain", version={"metadata": {}, "input_example": [[1.0, 2.0], [3.0, 4.0]]})
    signatures = {
        model.name: model.described.signature for model in visible_models(None)
    }

    document = _document()

    predictions = [
        (path, operations["post"])
        for path, operations in document["paths"].items()
        if path.endswith(("/predict", "/batch", "/explain"))
    ]
    typed = 0
    for path, operation in predictions:
        content = operation["requestBody"]["content"]["application/json"]
        value = content["examples"]["logged"]["value"]
        # Generic operations show the first model's rows.
        tag = operation["tags"][0]
        decoder = InstanceDecoder(signatures.get(tag, signatures["breast-cancer"]))
        assert decoder.decode_request(msgspec.json.encode(value)).rows == 2, path
        _resolve(document, content["schema"]).validate(value)
        if tag in signatures:
            answer = operation["responses"]["200"]["content"]["application/json"]
            example = answer["examples"]["form"]["value"]
            _resolve(document, answer["schema"]).validate(example)
            typed += 1
    assert typed == 5  # predict, batch, explain; predict, batch
    assert len(predictions) > typed


def test_the_views_are_described_without_a_complaint(capsys):
    reset_generator_stats()

    _document()

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
    assert examples == {code.value for code in ErrorCode}


def test_nothing_is_promised_that_no_code_answers():
    """Whoever reads of an Idempotency-Key would rely on it."""
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

    def test_an_unchanged_document_costs_only_the_catalog(
        self, client, django_assert_num_queries
    ):
        self._paths(client)

        with django_assert_num_queries(5):
            self._paths(client)


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
        [example] = content["examples"].values()
        _resolve(document, content["schema"]).validate(example["value"])
    options = document["components"]["schemas"]["BreastCancerEmbedRequest"]
    assert "normalize" in options["properties"]["options"]["properties"]
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
        "Account",
        "Open Inference Protocol",
        "Health",
    ]


def test_sending_an_announced_file_needs_no_key():
    operation = _document()["paths"]["/api/v1/uploads/{upload_id}/content"]["put"]

    assert operation["security"] == []
    assert "401" not in operation["responses"]


def test_every_body_of_json_has_an_example_that_fits_its_schema():
    _route()

    document = _document()

    bodies = 0
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            body = content.get("application/json")
            if body is None or path.endswith("/content"):  # a file
                continue
            examples = [item["value"] for item in body.get("examples", {}).values()]
            examples += [body["example"]] if "example" in body else []
            assert examples, path
            for example in examples:
                _resolve(document, body["schema"]).validate(example)
            bodies += 1
    assert bodies > 15
