"""Test the plan with images and parameters."""

import time

import msgspec
import pytest

from inference.codecs.images import read_images
from inference.engine.signatures.signature import (
    Column,
    Image,
    Layout,
    Param,
    Signature,
)
from inference.prediction.effects import EngineCall, NeedBody, ReadImages
from inference.snapshot.contents import CallableModel, CallableVersion
from registry.routing import Variant
from tests.inference.codecs.test_images import picture
from tests.inference.prediction.test_plan import Driver, code, snapshot

PICTURES = Signature(
    layout=Layout.TENSOR,
    dtype="uint8",
    shape=(4, 6),
    image=Image(mode="L", height=4, width=6),
    params=(Param("threshold", "float64", 0.5),),
)
PNG = {b"content-type": b"image/png"}


class ImageDriver(Driver):
    """A driver that decodes images as the gateway does, in `read_s` seconds."""

    read_s = 0.0

    def perform(self, effect):
        if not isinstance(effect, ReadImages):
            return super().perform(effect)
        self.clock.advance(self.read_s)
        return read_images(
            effect.images, max_pixels=1000, deadline=time.monotonic() + 60
        )

    def of(self, kind):
        return [effect for effect in self.effects if isinstance(effect, kind)]


@pytest.fixture
def driver():
    published = snapshot()
    cancer = published.models[0]
    versions = tuple(
        msgspec.structs.replace(version, signature=PICTURES)
        for version in cancer.versions
    )
    models = (msgspec.structs.replace(cancer, versions=versions),)
    return ImageDriver(msgspec.structs.replace(published, models=models))


def test_images_are_decoded_by_the_driver(driver):
    answer = driver.call(picture("L", colour=9), headers=PNG)

    assert answer.status == 200
    [call] = driver.of(EngineCall)
    assert call.tensors[0].data.tolist() == [[[9] * 6] * 4]


def test_images_may_be_large_bodies_where_json_may_not(driver):
    driver.call(picture("L", colour=9), headers=PNG)
    driver.call({"instances": []})

    image, plain = driver.of(NeedBody)
    assert image.max_bytes > plain.max_bytes


def test_bad_images_spend_nothing(driver):
    answer = driver.call(b"\x89PNG", headers=PNG)

    assert code(answer) == (400, "INVALID_INPUT")
    assert not answer.event.charged
    assert driver.of(EngineCall) == []


def test_too_many_pixels_are_too_large(driver):
    answer = driver.call(picture("L", size=(40, 26), colour=9), headers=PNG)

    assert code(answer) == (413, "TOO_LARGE")


def test_decoding_counts_towards_the_deadline(driver):
    driver.read_s = 2.0

    answer = driver.call(
        picture("L", colour=9), headers=PNG | {b"x-deadline-ms": b"1000"}
    )

    assert code(answer) == (504, "INFERENCE_TIMEOUT")


def test_site_default_model_takes_images_too(driver):
    assert driver.call(picture("L", colour=9), headers=PNG, model=None).status == 200


def test_parameters_reach_the_engine(driver):
    rows = [[[0] * 6] * 4]

    driver.call({"instances": rows, "parameters": {"threshold": 1}})
    driver.call({"instances": rows})

    assert [call.params for call in driver.of(EngineCall)] == [{"threshold": 1.0}, None]


def optional_model():
    signature = Signature(
        layout=Layout.MATRIX,
        columns=(Column("mean radius"), Column("area", required=False)),
        shape=(2,),
    )
    version = CallableVersion(version=2, signature=signature, engines=("cpu",))
    model = CallableModel(
        name="cancer",
        versions=(version,),
        variants=(Variant(version=2, role="default", weight_percent=100),),
    )
    return msgspec.structs.replace(snapshot(), models=(model,))


def test_the_event_has_bits_of_the_optional_inputs_that_were_sent():
    driver = Driver(optional_model())

    sent = driver.call({"instances": [{"mean radius": 1, "area": 2}]})
    left_out = driver.call({"instances": [{"mean radius": 1}]})
    refused = driver.call({"instances": [{"area": 2}]})

    assert (sent.status, left_out.status, refused.status) == (200, 200, 400)
    assert (sent.event.used, left_out.event.used) == (1, 0)
    assert refused.event.used is None


def test_the_event_of_a_model_that_needs_all_inputs_has_no_bits():
    assert Driver().call().event.used is None
