"""List the operations on models; paths, views and API documents come from the rows."""

from typing import NamedTuple

from inference.dialects.dialect import Dialect, Operation
from inference.dialects.mlflow.scoring import MLFLOW
from inference.dialects.native.embedding import EMBEDDING
from inference.dialects.native.event_stream import EVENT_STREAM
from inference.dialects.native.native import NATIVE

_UPLOADED = "PredictUploadedRequest"
_BATCH_UPLOADED = "PredictBatchUploadedRequest"


class ServedOperation(NamedTuple):
    """An operation below `models/{model}/` and `models/{model}/versions/{version}/`."""

    # Its id in the OpenAPI document, also with `WithVersion` or `WithDefaultModel`.
    name: str
    # The part of the path after the model or version.
    path: str
    operation: Operation
    dialect: Dialect
    summary: str
    summary_with_version: str
    # Names of the schemas that the body may have.
    requests: tuple[str, ...]
    # Name of the answer's schema; None: it is a stream of events.
    answer: str | None
    description: str | None = None
    # The query may ask for explanations.
    explainable: bool = False
    takes_csv: bool = False
    # If set, there is also a path without a model, for the site's default model.
    summary_with_default_model: str = ""
    requests_with_default_model: tuple[str, ...] = ()


OPERATIONS = (
    ServedOperation(
        "predict",
        "predict",
        "predict",
        NATIVE,
        "Predict a few rows",
        "Predict with one version",
        ("PredictRequest", _UPLOADED),
        "PredictAnswer",
        explainable=True,
        summary_with_default_model="Predict with the site's default model",
        requests_with_default_model=("PredictDefaultModelRequest", _UPLOADED),
    ),
    ServedOperation(
        "predictBatch",
        "predict/batch",
        "batch",
        NATIVE,
        "Predict many rows",
        "Predict many rows with one version",
        ("PredictBatchRequest", _BATCH_UPLOADED),
        "PredictBatchAnswer",
        summary_with_default_model="Predict many rows with the site's default model",
        requests_with_default_model=(
            "PredictBatchDefaultModelRequest",
            _BATCH_UPLOADED,
        ),
    ),
    ServedOperation(
        "explain",
        "explain",
        "explain",
        NATIVE,
        "Predict and explain",
        "Predict and explain with one version",
        ("ExplainRequest", "ExplainUploadedRequest"),
        "ExplainAnswer",
        "SHAP values of each instance. `Accept: image/svg+xml` gives a waterfall plot "
        "of the first.",
    ),
    ServedOperation(
        "stream",
        "stream",
        "stream",
        EVENT_STREAM,
        "Predict chunk by chunk",
        "Predict chunk by chunk with one version",
        ("PredictRequest", _UPLOADED),
        None,
        "Server-sent events of one instance's answer: `data` of each chunk, and a last "
        "event `end` or `error`.",
    ),
    ServedOperation(
        "embed",
        "embed",
        "embed",
        EMBEDDING,
        "Embed a few rows",
        "Embed with one version",
        ("EmbedRequest", "EmbedUploadedRequest"),
        "EmbedAnswer",
        "One vector per instance, of a model whose task is `embedding`.",
    ),
    ServedOperation(
        "invocations",
        "invocations",
        "batch",
        MLFLOW,
        "Predict as mlflow models serve does",
        "Predict with one version as mlflow models serve does",
        ("InvocationsRequest",),
        "InvocationsAnswer",
        "MLflow's scoring protocol: one of the four formats, or CSV. The answer holds "
        "the model's own outputs, without labels.",
        takes_csv=True,
    ),
)
