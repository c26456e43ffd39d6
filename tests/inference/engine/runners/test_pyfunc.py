import msgspec
import numpy as np
import pandas
import pytest

from inference.engine.runners import pyfunc, runner
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.tensors import Tensor

MATRIX = Signature(layout=Layout.TENSOR, dtype="float64", shape=(2,))
TABLE = Signature(
    layout=Layout.TABLE,
    columns=(Column("text", dtype="str"), Column("times", dtype="int64")),
)


class Shouting:
    """A model for both kinds of input: it repeats text, or sums numbers."""

    def predict(self, model_input):
        if isinstance(model_input, pandas.DataFrame):
            assert list(model_input.columns) == ["text", "times"]
            return model_input["text"].str.upper() * model_input["times"]
        model_input[:] += 1  # models may do that
        return model_input.sum(axis=1)


def test_tables_become_data_frames_in_the_signatures_order():
    shouting = pyfunc.PyfuncRunner(Shouting(), TABLE)
    text = np.array(["a", "b"], dtype=object)

    (output,) = shouting.run((Tensor("times", np.array([2, 1])), Tensor("text", text)))

    assert output.data.tolist() == ["AA", "B"]


def test_tensors_become_arrays_that_the_model_may_write_to():
    shouting = pyfunc.PyfuncRunner(Shouting(), MATRIX)
    data = np.ones((1, 2))
    data.flags.writeable = False

    (output,) = shouting.run((Tensor("input", data),))

    assert output.data.tolist() == [4.0]
    assert data.tolist() == [[1.0, 1.0]]


@pytest.mark.filterwarnings("ignore")
def test_a_trusted_scikit_learn_model_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nonexistent")
    import mlflow
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    data = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    model = LinearRegression().fit(data, data.sum(axis=1))
    mlflow.sklearn.save_model(
        model,
        str(tmp_path / "model"),
        signature=infer_signature(data, model.predict(data)),
        input_example=data,
        pip_requirements=[],
    )
    version = VersionToLoad(
        key=VersionKey("plane", 1),
        path=str(tmp_path / "model"),
        flavors=("python_function", "sklearn"),
        signature=msgspec.to_builtins(MATRIX),
        trusted=True,
    )

    loaded = runner.load(version, "cpu")
    (output,) = loaded.runner.run((Tensor("input", np.array([[2.0, 3.0]])),))

    assert output.data.tolist() == pytest.approx([5.0])
    assert loaded.runner.torch_function is None
