import numpy as np
import pytest

from explain import features
from inference.api.openapi.typed_operations import can_explain
from inference.engine.signatures.signature import (
    Column,
    Layout,
    Signature,
    Task,
    TensorInput,
)
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Tensor, object_array

MIXED = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("count", dtype="int64", required=False),
        Column("member", dtype="bool", required=False),
        Column("size", dtype="float32"),
    ),
)


def test_missing_values_survive_the_way_to_numbers_and_back():
    sent = (
        Tensor("count", np.array([1.0, np.nan])),
        Tensor("member", object_array([True, None])),
        Tensor("size", np.array([0.5, 1.5], np.float32)),
    )

    matrix = features.to_matrix(MIXED, sent)
    back = features.to_tensors(MIXED, matrix, like=sent)

    assert matrix.tolist()[0] == [1.0, 1.0, 0.5]
    assert np.isnan(matrix[1, :2]).all()
    count, member, size = (tensor.data for tensor in back)
    assert (count[0], np.isnan(count[1])) == (1.0, True)
    assert member.tolist() == [True, None]
    assert size.dtype == np.float32


def test_columns_have_the_same_dtypes_without_gaps():
    matrix = np.array([[1.0, 0.0, 2.0]])
    like = tuple(Tensor(column.name, matrix) for column in MIXED.columns)

    back = features.to_tensors(MIXED, matrix, like=like)

    assert [str(tensor.data.dtype) for tensor in back] == [
        "float64",
        "object",
        "float32",
    ]


@pytest.mark.parametrize(
    "signature",
    [
        Signature(layout=Layout.TENSOR, shape=(3,)),
        Signature(layout=Layout.TENSORS, inputs=(TensorInput("a"), TensorInput("b"))),
        Signature(layout=Layout.MATRIX, columns=(Column("a"),), task=Task.EMBEDDING),
        *(
            Signature(layout=Layout.TABLE, columns=(Column("a", dtype=dtype),))
            for dtype in ("str", "bytes", "json", "datetime64[ns]")
        ),
    ],
)
def test_what_has_no_named_numbers_is_not_explainable(signature):
    with pytest.raises(EngineError) as caught:
        features.check_explainable(signature)

    assert caught.value.code is EngineErrorCode.NOT_EXPLAINABLE


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "str", "datetime64[ns]"])
@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("named", [True, False])
def test_the_docs_offer_explanations_where_they_are_given(dtype, task, named):
    signature = Signature(
        layout=Layout.TABLE if named else Layout.TENSOR,
        columns=(Column("a", dtype),) if named else (),
        shape=(1,),
        task=task,
        background="background.json",
    )

    try:
        features.check_explainable(signature)
    except EngineError:
        given = False
    else:
        given = True

    assert can_explain(signature) == given
