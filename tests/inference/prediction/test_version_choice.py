"""Test every way to name a version, for every operation of every protocol."""

import json

import msgspec
import pytest

from inference.dialects.native.embedding import EMBEDDING
from inference.engine.signatures.signature import Task
from inference.gateway.routes import find_prediction
from inference.prediction.effects import (
    NextChunk,
    NoChunk,
    OpenStream,
    SendHead,
    SendPiece,
)
from tests.inference.prediction.test_plan import SIGNATURE, Driver, snapshot

ROW = {"mean radius": 1.5, "area": 2}
OWN = {"instances": [ROW]}
TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}
BODIES = {
    "predict": OWN,
    "predict/batch": OWN,
    "explain": OWN,
    "embed": OWN,
    "stream": OWN,
    "invocations": {"inputs": [[1.5, 2]]},
    "infer": {"inputs": [TENSOR]},
}
ACCEPT_3 = {b"accept": b"application/vnd.modelyard.v1+json; model-version=3"}
HEADER_1 = {b"x-model-version": b"1"}
HEADER_ALIAS = {b"x-model-version": b"champion"}
WAYS = [
    ("", {}, "2"),
    ("", ACCEPT_3, "3"),
    ("", HEADER_1, "1"),
    ("", HEADER_ALIAS, "2"),
    ("", HEADER_1 | ACCEPT_3, "1"),
    ("/versions/3", {}, "3"),
    ("/versions/champion", {}, "2"),
    ("/versions/3", HEADER_1, "3"),
    ("/versions/champion", HEADER_1 | ACCEPT_3, "2"),
]


class AnyDriver(Driver):
    """A driver that can also stream; its streams have no chunks."""

    def perform(self, effect):
        match effect:
            case OpenStream():
                return "stream"
            case NextChunk():
                return NoChunk.ENDED
            case SendHead() | SendPiece():
                return None
        return super().perform(effect)


def published(*, embeds, **changes):
    """Publish versions 1 to 3; without a name the default, 2, answers."""
    found = snapshot()
    model, *others = found.models
    signature = SIGNATURE
    if embeds:
        signature = msgspec.structs.replace(signature, task=Task.EMBEDDING)
    versions = tuple(
        msgspec.structs.replace(version, signature=signature)
        for version in model.versions
    )
    default = msgspec.structs.replace(model.variants[0], weight_percent=100)
    fields = {"versions": versions, "variants": (default,)} | changes
    model = msgspec.structs.replace(model, **fields)
    return msgspec.structs.replace(found, models=(model, *others))


def ask(operation, path_part, headers, **changes):
    root = "/v2" if operation == "infer" else "/api/v1"
    path = find_prediction(f"{root}/models/cancer{path_part}/{operation}")
    driver = AnyDriver(published(embeds=path.dialect is EMBEDDING, **changes))
    return driver.call(
        json.dumps(BODIES[operation]).encode(),
        headers=headers,
        operation=path.operation,
        dialect=path.dialect,
        model=path.model,
        version=path.version,
    )


@pytest.mark.parametrize(("path_part", "headers", "version"), WAYS)
@pytest.mark.parametrize("operation", BODIES)
def test_version_is_that_of_path_then_header_then_accept(
    operation, path_part, headers, version
):
    answer = ask(operation, path_part, headers)

    assert answer.status == 200, answer.body
    assert answer.event.version == version


@pytest.mark.parametrize(
    ("path_part", "headers"),
    [
        ("/versions/9", {}),
        ("/versions/challenger", HEADER_1),
        ("", {b"x-model-version": b"9"}),
        ("", {b"accept": b"application/vnd.modelyard.v1+json; model-version=9"}),
    ],
)
@pytest.mark.parametrize("operation", BODIES)
def test_a_version_that_is_not_there_is_not_found(operation, path_part, headers):
    assert ask(operation, path_part, headers).status == 404


BROKEN = {"variants": (), "broken": ("7", "odd"), "stuck": True}


@pytest.mark.parametrize("path_part", ["", "/versions/7", "/versions/odd"])
@pytest.mark.parametrize("operation", BODIES)
def test_what_cannot_be_loaded_gives_no_time_to_wait_for(operation, path_part):
    answer = ask(operation, path_part, {}, **BROKEN)

    assert answer.status == 503
    assert b"waiting does not help" in answer.body
    assert b"retry-after" not in dict(answer.headers)


@pytest.mark.parametrize("operation", BODIES)
def test_what_is_coming_says_when_to_ask_again(operation):
    answer = ask(operation, "", {}, variants=())

    assert answer.status == 503
    assert b"retry-after" in dict(answer.headers)
