"""Calls of the Open Inference Protocol on made-up models, without a server."""

import json

import msgspec
import numpy as np

from accounts.admission.limits import Limits
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished
from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.engine.signatures.signature import Column, Layout, Signature, TensorInput
from inference.engine.wire.tensors import Prediction, Tensor
from inference.snapshot.contents import CallableModel, CallableVersion
from inference.snapshot.targets import Target

MATRIX = Signature(
    layout=Layout.MATRIX,
    columns=(Column("width", minimum=0, maximum=100), Column("height")),
    shape=(2,),
    labels=("small", "large"),
)
TABLE = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("age", dtype="int64", minimum=0),
        Column("city", dtype="str", max_length=5),
        Column("income", dtype="float64", required=False),
        Column("member", dtype="bool", required=False),
        Column("colour", dtype="str", required=False, enum=("red", "blue")),
    ),
)
TENSOR = Signature(layout=Layout.TENSOR, shape=(2, 3))
TENSORS = Signature(
    layout=Layout.TENSORS,
    inputs=(
        TensorInput("ids", dtype="int64", shape=(-1,)),
        TensorInput("mask", dtype="int8", shape=(-1,)),
    ),
)
LIMITS = Limits(plan="p", rates=(), quotas=(), max_batch_rows=100)


def target_of(signature):
    version = CallableVersion(version=3, signature=signature)
    model = CallableModel(name="m", versions=(version,))
    return Target(model, version, variant="default")


def call_of(**headers):
    given = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in headers.items()
    ]
    return Call("predict", call_headers.read(given), OPEN_INFERENCE, "m")


def decode(signature, body, *, limits=LIMITS, **headers):
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    call = call_of(**headers)
    OPEN_INFERENCE.prepare(call)
    return OPEN_INFERENCE.decode(call, target_of(signature), body, limits)


def decode_binary(signature, inputs, *parts, limits=LIMITS, **members):
    """Send the JSON of `inputs`, followed by the raw `parts`."""
    head = json.dumps({"inputs": inputs, **members}).encode()
    return decode(
        signature,
        b"".join((head, *parts)),
        limits=limits,
        inference_header_content_length=str(len(head)),
    )


def encode(signature, decoded, **outputs):
    """Encode `outputs` by name; return headers, JSON and raw bytes of the answer."""
    tensors = tuple(Tensor(name, np.asarray(data)) for name, data in outputs.items())
    content_type, body, headers = OPEN_INFERENCE.encode(
        Finished(
            call_of(),
            "req_1",
            target_of(signature),
            decoded,
            Prediction(tensors, 1, 2, 3),
            None,
        )
    )
    headers = dict(headers) | {b"content-type": content_type}
    size = int(headers.get(b"inference-header-content-length", len(body)))
    return headers, msgspec.json.decode(body[:size]), bytes(body[size:])


def fp32(data, shape, name="input", **members):
    return {
        "name": name,
        "shape": shape,
        "datatype": "FP32",
        "data": data,
        **members,
    }


def raw(name, shape, datatype, size):
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }
