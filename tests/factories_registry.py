"""Make rows of the registry. Set only the fields that the test is about."""

import copy
from datetime import UTC, datetime

import factory
from factory.django import DjangoModelFactory

from registry.models import Alias, ModelVersion, RegisteredModel, Route

TENSOR_SIGNATURE = {
    "inputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
    ],
    "outputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
    ],
}


class RegisteredModelFactory(DjangoModelFactory[RegisteredModel]):
    class Meta:
        model = RegisteredModel

    name = factory.Sequence(lambda n: f"model-{n}")


class ModelVersionFactory(DjangoModelFactory[ModelVersion]):
    """A version with two named columns and two labels, in the local cache."""

    class Meta:
        model = ModelVersion

    registered_model = factory.SubFactory(RegisteredModelFactory)
    version = factory.Sequence(lambda n: n + 1)
    source = factory.LazyAttribute(
        lambda row: f"models:/m-{row.registered_model.name}-{row.version}"
    )
    mlflow_status = "READY"
    registered_at = datetime(2026, 1, 1, tzinfo=UTC)
    # Made anew for each row, so a change by one test does not reach the next.
    flavors = factory.LazyFunction(lambda: ["python_function", "pytorch"])
    signature = factory.LazyFunction(lambda: copy.deepcopy(TENSOR_SIGNATURE))
    metadata = factory.LazyFunction(
        lambda: {
            "task": "classification",
            "columns": ["width", "height"],
            "labels": ["small", "large"],
        }
    )
    input_example = factory.LazyFunction(lambda: [{"width": 1.0, "height": 2.0}])
    artifact_state = ModelVersion.ArtifactState.READY
    artifact_digest = "0" * 64


class AliasFactory(DjangoModelFactory[Alias]):
    class Meta:
        model = Alias

    version = factory.SubFactory(ModelVersionFactory)
    registered_model = factory.SelfAttribute("version.registered_model")
    name = "champion"


class RouteFactory(DjangoModelFactory[Route]):
    """A route without a canary; see `with_canary`."""

    class Meta:
        model = Route

    default_version = factory.SubFactory(ModelVersionFactory)
    registered_model = factory.SelfAttribute("default_version.registered_model")

    class Params:
        with_canary = factory.Trait(
            canary_version=factory.SubFactory(
                ModelVersionFactory,
                registered_model=factory.SelfAttribute("..registered_model"),
            ),
            canary_weight_percent=10,
            default_weight_percent=90,
        )


def breaking_version(route: Route) -> ModelVersion:
    """Return a version without the column `height` and the label `large`."""
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 1]}}
    return ModelVersionFactory.create(
        registered_model=route.registered_model,
        signature={"inputs": [tensor], "outputs": TENSOR_SIGNATURE["outputs"]},
        metadata={
            "task": "classification",
            "columns": ["width"],
            "labels": ["small", "medium"],
        },
    )
