import numpy as np
import pytest

from inference.engine.runners.outputs import described, finish
from inference.engine.runners.pyfunc_outputs import to_tensors
from inference.engine.signatures.signature import Layout, Signature, Task
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.joined_outputs import join_outputs
from inference.engine.wire.messages import OutputTensor
from inference.engine.wire.tensors import Tensor, object_array


def signature(**fields):
    return Signature(layout=Layout.TENSOR, **fields)


def outputs(*arrays):
    return tuple(
        Tensor(f"output_{index}", np.asarray(array))
        for index, array in enumerate(arrays)
    )


def test_several_outputs_are_named_by_their_places():
    named = finish(outputs([1], [2]), signature(outputs=("first", "second")))

    assert [(one.name, one.data.tolist()) for one in named] == [
        ("first", [1]),
        ("second", [2]),
    ]


def test_outputs_that_have_their_names_keep_them():
    given = (Tensor("b", np.ones(1)), Tensor("a", np.zeros(1)))

    assert finish(given, signature(outputs=("a", "b"))) == given


def test_vectors_are_scaled_to_length_one_but_for_zeros():
    wanted = signature(task=Task.EMBEDDING, normalize=True)
    vectors = np.array([[3, 4], [0, 0]], dtype=np.float32)

    (output,) = finish(outputs(vectors), wanted)

    assert output.data.dtype == np.float32
    assert output.data == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


@pytest.mark.parametrize(
    "arrays", [(), ([1.0],), ([[1]],), ([[1.0]], [[1.0]]), ([["a"]],)]
)
def test_all_but_one_vector_per_row_is_no_embedding(arrays):
    with pytest.raises(ValueError, match="one vector"):
        finish(outputs(*arrays), signature(task=Task.EMBEDDING))


def test_sizes_that_differ_between_runs_vary():
    long = outputs(np.ones((2, 5, 3), "float32"), np.array(["a", "b"], object))
    short = outputs(np.ones((1, 4, 3), "float32"), np.array(["a"], object))

    assert described([long, short], signature()) == (
        OutputTensor("output_0", "float32", (-1, 3)),
        OutputTensor("output_1", "str", ()),
    )


def test_sizes_that_the_signature_leaves_open_vary():
    given = outputs(np.ones((2, 5, 3)))

    (output,) = described([given, given], signature(output_shapes=((-1, 3),)))

    assert output.shape == (-1, 3)


def joined(*pieces):
    """Join the outputs of a Python model for one row each."""
    outputs = join_outputs([to_tensors(piece, rows=1) for piece in pieces])
    return {output.name: output.data.tolist() for output in outputs}


@pytest.mark.parametrize(
    "rows",
    [
        [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.1, "why": "rule 3"}],
        [{"label": "a", "score": 0.9, "why": "rule 3"}, {"label": "b", "score": 0.1}],
        [2**53 + 1, 0.5],
        [True, 2],
        [True, 0.5],
        [1, 0.5],
        ["a", 1],
        [[1.5, 2.0], ["a"]],
        [None, 0.5],
        [[1.5, 2.0], [3.5]],
        [[1, 2], 3],
        [[[1.5, 2.5]], [0.5]],
    ],
)
def test_pieces_of_a_batch_are_joined_as_they_were_given(rows):
    assert joined(*([row] for row in rows)) == {"output": rows}


def test_outputs_of_pieces_are_joined_by_their_names():
    first = {"x": np.array([1]), "y": ["a"]}
    second = {"y": ["b"], "x": np.array([2])}

    assert joined(first, second) == {"x": [1, 2], "y": ["a", "b"]}
    assert list(joined(second, first)) == ["y", "x"]


def test_pieces_of_one_dtype_stay_an_array():
    (output,) = join_outputs([outputs(np.ones((2, 3), "float32"))] * 2)

    assert (output.data.dtype, output.data.shape) == (np.float32, (4, 3))


@pytest.mark.parametrize("other", [np.ones(1), np.ones(1, bool), object_array(["a"])])
def test_times_and_other_values_of_one_output_are_refused_by_its_name(other):
    times = (Tensor("when", np.array(["2024-01-02"], "datetime64[ns]")),)

    with pytest.raises(EngineError, match=r"times for some rows.*'when'") as refused:
        join_outputs([times, (Tensor("when", other),)])

    assert refused.value.code is EngineErrorCode.MODEL_ERROR
