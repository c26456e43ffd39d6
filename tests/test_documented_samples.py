"""Test the samples that need no server: JSON, and code that logs models.

tests/end_to_end/test_documented_samples.py tests the samples that call a server.
"""

import warnings
from types import SimpleNamespace

import jsonschema
import msgspec
import numpy as np
import pytest

from inference.api.openapi.common_parts import ERROR_SCHEMA
from inference.api.openapi.examples import pixel_png
from inference.api.openapi.shared_schemas import SCHEMAS
from inference.codecs.decoding import InstanceDecoder
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import (
    Column,
    Image,
    Layout,
    Param,
    Signature,
    TensorInput,
)
from inference.engine.wire.messages import ProcessRules
from inference.environments import needs
from inference.uploads.serializers import StoredUploadSerializer, UploadSerializer
from registry.rules import column_rules, rollout_plans
from registry.rules import metadata as registry_metadata
from registry.rules.column_rules import InputColumn
from tests.documented_samples import logs_a_model, samples


def named(sample):
    return f"{sample.document}:{sample.line}"


class Recorder:
    """Replace a flavor of MLflow, and keep the arguments that log a model."""

    def log_model(self, *_, **given):
        self.given = given


@pytest.mark.parametrize(
    "sample", list(filter(logs_a_model, samples("python"))), ids=named
)
def test_samples_for_data_scientists_say_what_we_read(sample):
    # MLflow warns about its own type hints.
    with warnings.catch_warnings(action="ignore"):
        import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    recorder = Recorder()
    names = {
        "mlflow": SimpleNamespace(
            pytorch=recorder, sklearn=recorder, pyfunc=mlflow.pyfunc
        ),
        "ModelSignature": ModelSignature,
        "Schema": Schema,
        "TensorSpec": TensorSpec,
        "np": np,
        "model": None,
    }

    with warnings.catch_warnings(action="ignore"):
        exec(sample.text, names)

    if "Writer" in names:
        writer = names["Writer"]()
        assert writer.predict(None, pd.DataFrame({"prompt": ["good"]})) == ["good"]
        words = writer.predict_stream(None, {"prompt": "so good"})
        assert list(words) == ["so ", "good "]
        return
    given = getattr(recorder, "given", {})
    if "pip_requirements" in given:
        lines = given["pip_requirements"]
        assert set(lines) < set(needs.to_install(lines))
        return
    if "signature" in names:
        signature, metadata = names["signature"].to_dict(), names["metadata"]
    else:
        side = Schema([TensorSpec(np.dtype("float32"), (-1, 3, 224, 224))])
        signature = ModelSignature(side, side).to_dict()
        metadata = recorder.given["metadata"]
    signature = {
        side: msgspec.json.decode(signature[side])
        for side in ("inputs", "outputs")
        if signature[side]
    }
    [own] = metadata.values()
    assert registry_metadata.check(own, signature) == []
    read = from_mlflow(signature, own)
    assert (read.padding is not None) == ("padding" in own)
    assert (read.image is not None) == ("image" in own)


# The signature for each sample of a request, by a word that only this sample has.
SIGNATURES = {
    "receipt": Signature(
        layout=Layout.TABLE,
        columns=(
            Column("age", "int64"),
            Column("city", "str"),
            Column("joined", "datetime64[ns]"),
            Column("receipt", "bytes"),
            Column("tags", "json", json_schema={"type": "array"}),
        ),
    ),
    "attention_mask": Signature(
        layout=Layout.TENSORS,
        inputs=(
            TensorInput("input_ids", "int64", (-1,)),
            TensorInput("attention_mask", "int64", (-1,)),
        ),
    ),
    "temperature": Signature(
        layout=Layout.TABLE,
        columns=(Column("prompt", "str"),),
        params=(Param("temperature", "float64", 1.0), Param("stop", "str", [], (-1,))),
    ),
    "b64": Signature(
        layout=Layout.TENSOR, shape=(1, 1), image=Image(mode="L", height=1, width=1)
    ),
}
RULED = [
    InputColumn("age", "long", True),
    InputColumn("plan", "string", True),
    InputColumn("city", "string", True),
    InputColumn("income", "double", False),
]


def read_request(value, text):
    [signature] = [it for word, it in SIGNATURES.items() if word in text]

    request = InstanceDecoder(signature).decode_request(msgspec.json.encode(value))

    assert request.rows == len(value["instances"])


def fits_an_answer(value, _):
    shared = {"components": {"schemas": SCHEMAS}}
    jsonschema.validate(value, SCHEMAS["PredictAnswer"] | shared)


def fits_an_error(value, _):
    members = ERROR_SCHEMA["properties"]["error"]["properties"]
    # An ellipsis replaces members that are left out.
    del value["error"]["…"]
    assert value["error"].keys() <= members.keys()
    jsonschema.validate(value["error"], {"properties": members})


def is_an_upload(value, _):
    form = UploadSerializer if "upload_url" in value else StoredUploadSerializer

    assert value.keys() == form().fields.keys()


def are_rules(value, _):
    assert column_rules.problems_of_route(value, RULED) == []


def is_the_usual_plan(value, _):
    assert rollout_plans.parse(value) == rollout_plans.Plan()


# The first of these members that a sample has decides its check.
CHECKS = {
    "instances": read_request,
    "predictions": fits_an_answer,
    "error": fits_an_error,
    "input_uri": is_an_upload,
    "age": are_rules,
    "stages": is_the_usual_plan,
}


@pytest.mark.parametrize("sample", samples("json"), ids=named)
def test_samples_of_json_are_what_is_read_or_answered(sample):
    # These are too long for a document.
    text = sample.text.replace("iVBORw0KGgo…", pixel_png())
    value = msgspec.json.decode(text)

    [check] = [check for member, check in CHECKS.items() if member in value]

    check(value, sample.text)


def test_the_rules_for_processes_are_read_as_they_are_documented():
    [sample] = [it for it in samples("python") if it.document == "docs/isolation.md"]
    names = {}
    exec(sample.text, names)

    assert registry_metadata.check(names["metadata"]["modelyard"], {}) == []
    read = msgspec.convert(names["metadata"]["modelyard"]["process"], ProcessRules)
    assert read.replicas == 2


def test_every_language_of_a_sample_is_one_that_is_run():
    assert all(map(samples, ("sh", "python", "json")))
    assert samples("bash") == []
    assert samples("shell") == []
