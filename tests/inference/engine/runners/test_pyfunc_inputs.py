from datetime import datetime

import numpy as np
import pytest

from inference.engine.runners.pyfunc_inputs import InputMaker, params_of
from inference.engine.signatures.signature import (
    Column,
    Layout,
    Param,
    Signature,
    TensorInput,
)
from inference.engine.wire.tensors import Tensor, object_array

MIXED = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("text", dtype="str"),
        Column("count", dtype="int64", required=False),
        Column("size", dtype="float32", required=False),
        Column("member", dtype="bool", required=False),
        Column("since", dtype="datetime64[ns]", required=False),
        Column("raw", dtype="bytes", required=False),
        Column("extra", dtype="json", required=False),
    ),
)
TEXT = Tensor("text", object_array(["a", "b"]))


def test_a_column_that_nobody_sent_holds_missing_values_of_its_kind():
    frame = InputMaker(MIXED).make([TEXT])

    assert list(frame.columns) == [column.name for column in MIXED.columns]
    assert frame.drop(columns="text").isna().all(axis=None)
    assert frame["count"].dtype == np.float64
    assert frame["size"].dtype == np.float32
    assert frame["since"].dtype == np.dtype("datetime64[ns]")
    assert frame["raw"].tolist() == [None, None]


def test_columns_have_the_labels_of_the_models_own_table():
    labels = [6, 1, 2, 3, 4, 5, 0]

    assert list(InputMaker(MIXED, labels=labels).make([TEXT]).columns) == labels


def test_several_tensors_are_a_dict_that_the_model_may_write_to():
    signature = Signature(
        layout=Layout.TENSORS, inputs=(TensorInput("a"), TensorInput("b"))
    )
    data = np.ones(2, np.float32)
    data.flags.writeable = False

    made = InputMaker(signature).make([Tensor("a", data), Tensor("b", data)])

    made["a"][:] = 0
    assert made["b"].tolist() == data.tolist() == [1, 1]


def test_parameters_that_nobody_gave_are_at_their_defaults():
    signature = Signature(
        layout=Layout.TENSOR,
        params=(
            Param("top", "int64", 3),
            Param("since", "datetime64[ns]", "2024-01-01T00:00:00Z"),
        ),
    )

    params = params_of(signature, {"top": 5})

    assert params == {"top": 5, "since": np.datetime64("2024-01-01T00:00:00")}


@pytest.mark.parametrize("given", [None, {}])
def test_models_without_parameters_get_none(given):
    assert params_of(MIXED, given) is None


def test_moments_among_parameters_are_of_a_precision_that_mlflow_takes():
    signature = Signature(
        layout=Layout.TABLE,
        params=(Param("since", "datetime64[ns]", "2024-01-01T00:00:00"),),
    )

    # MLflow wants a value that converts to `datetime`, which nanoseconds do not.
    assert params_of(signature, None)["since"].item() == datetime(2024, 1, 1)
