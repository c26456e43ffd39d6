"""Test that requests of different lengths share a batch but get their own answers."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.batching import lengths
from inference.engine.in_process import InProcessEngineClient
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import Layout, Signature, TensorInput
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Tensor
from tests import torture
from tests.inference.engine.fakes import KEY, FakeRunner, loaded_engine, run

PAD = 99
SIGNATURE = Signature(
    layout=Layout.TENSORS,
    inputs=(
        TensorInput("input_ids", "int64", (-1,)),
        TensorInput("attention_mask", "int64", (-1,)),
    ),
    output_shapes=((), (-1,)),
    padding=Padding(value=PAD, buckets=(4, 8), mask_input="attention_mask"),
)


class Tokens(FakeRunner):
    """A runner that sums the tokens that the mask marks, and returns each of them."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def run(self, tensors):
        by_name = {tensor.name: tensor.data for tensor in tensors}
        ids, mask = by_name["input_ids"], by_name["attention_mask"]
        self.shapes.append(ids.shape)
        super().run((Tensor("ids", ids.astype(np.float32)),))
        return Tensor("sum", (ids * mask).sum(1)), Tensor("each", ids * 10)


def request(*rows):
    ids = np.array(rows, np.int64)
    return Tensor("input_ids", ids), Tensor("attention_mask", np.ones_like(ids))


async def engine_with(tmp_path, runner, signature=SIGNATURE):
    engine = await loaded_engine(tmp_path, runner, signature=signature)
    return engine, InProcessEngineClient(engine)


def test_different_lengths_share_a_batch_and_are_cut_apart_again(tmp_path):
    async def main():
        runner = Tokens()
        _, client = await engine_with(tmp_path, runner)
        runner.shapes.clear()
        runner.hold()
        first = asyncio.ensure_future(
            client.predict(PredictionCall(KEY, request([1, 2, 3, 4]), timeout_s=5))
        )
        await asyncio.to_thread(runner.started.wait, 5)
        both = asyncio.gather(
            client.predict(PredictionCall(KEY, request([1, 2]), timeout_s=5)),
            client.predict(
                PredictionCall(KEY, request([5, 6, 7], [8, 9, 10]), timeout_s=5)
            ),
        )
        await asyncio.sleep(0)
        runner.release()

        await first
        one, other = await both

        assert runner.shapes == [(1, 4), (3, 4)]
        assert one.tensors[0].data.tolist() == [3]
        assert one.tensors[1].data.tolist() == [[10, 20]]
        assert other.tensors[0].data.tolist() == [18, 27]
        assert other.tensors[1].data.tolist() == [[50, 60, 70], [80, 90, 100]]
        assert one.batch_rows == 3

    run(main())


def test_a_row_longer_than_the_largest_bucket_is_refused_with_the_limit(tmp_path):
    async def main():
        _, client = await engine_with(tmp_path, Tokens())

        with pytest.raises(EngineError) as caught:
            await client.predict(
                PredictionCall(KEY, request(list(range(9))), timeout_s=5)
            )

        assert caught.value.code is EngineErrorCode.BAD_REQUEST
        assert "8 are the most" in caught.value.message

    run(main())


def test_a_tensor_that_does_not_fit_the_signature_is_refused(tmp_path):
    async def main():
        _, client = await engine_with(tmp_path, Tokens())
        ids, mask = request([1, 2])

        with pytest.raises(EngineError) as caught:
            await client.predict(
                PredictionCall(
                    KEY, (ids, Tensor(mask.name, mask.data[:, :, None])), timeout_s=5
                )
            )

        assert caught.value.code is EngineErrorCode.BAD_REQUEST

    run(main())


def test_without_a_rule_only_equal_lengths_share_a_batch():
    free = Signature(layout=Layout.TENSORS, inputs=SIGNATURE.inputs)
    fixed = Signature(layout=Layout.TENSOR, shape=(3,), padding=Padding())

    assert lengths.of(free) is None
    assert lengths.of(fixed) is None


@settings(max_examples=torture.examples(25), deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 8)), min_size=1, max_size=12
    )
)
def test_answers_equal_those_of_unfilled_requests(tmp_path_factory, requests):
    async def main():
        runner = Tokens()
        _, client = await engine_with(tmp_path_factory.mktemp("home"), runner)
        sent = [
            np.arange(rows * length).reshape(rows, length) + 1000 * index
            for index, (rows, length) in enumerate(requests)
        ]

        answers = await asyncio.gather(
            *(
                client.predict(PredictionCall(KEY, request(*ids), timeout_s=5))
                for ids in sent
            )
        )

        assert {shape[1] for shape in runner.shapes} <= {4, 8}
        for ids, answer in zip(sent, answers, strict=True):
            np.testing.assert_array_equal(answer.tensors[0].data, ids.sum(1))
            np.testing.assert_array_equal(answer.tensors[1].data, ids * 10)

    run(main())
