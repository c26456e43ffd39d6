"""Small models of three kinds, saved as MLflow saves them."""

from pathlib import Path


def save_table(path: Path) -> None:
    """A scikit-learn model over columns of four types, one of them optional."""
    import mlflow.sklearn
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = pandas.DataFrame(
        {
            "age": [20, 30, 40, 50] * 10,
            "income": [1.5, 2.5, 3.5, 4.5] * 10,
            "member": [True, False, True, False] * 10,
            "score": [0.1, None, 0.3, 0.4] * 10,
        }
    )
    model = HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=2)
    model.fit(rows, rows["age"] * 2.0 + rows["income"])
    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec("long", "age"),
                ColSpec("double", "income"),
                ColSpec("boolean", "member"),
                ColSpec("double", "score", required=False),
            ]
        ),
        outputs=Schema([ColSpec("double")]),
    )
    mlflow.sklearn.save_model(
        model,
        path,
        signature=signature,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )


def save_tensor(path: Path) -> None:
    """A torch module over rows of three floats."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import infer_signature

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Softmax(dim=-1)).eval()
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    with torch.no_grad():
        outputs = module(torch.from_numpy(rows)).numpy()
    mlflow.pytorch.save_model(
        module,
        path,
        signature=infer_signature(rows, outputs),
        input_example=rows,
        pip_requirements=["torch"],
    )


def save_text(path: Path) -> None:
    """Python code over text, with parameters; its answer is a table."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    code = path.with_suffix(".py")
    code.write_text(TEXT_CODE)
    mlflow.pyfunc.save_model(
        path,
        python_model=str(code),
        signature=ModelSignature(
            inputs=Schema([ColSpec("string", "text")]),
            outputs=Schema([ColSpec("string", "loud"), ColSpec("long", "length")]),
            params=ParamSchema(
                [ParamSpec("times", "long", 1), ParamSpec("end", "string", "!")]
            ),
        ),
        pip_requirements=["pandas"],
    )


def save_names(path: Path) -> None:
    """Python code over columns whose names JSON has to escape."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    code = path.with_suffix(".py")
    code.write_text(NAMES_CODE)
    mlflow.pyfunc.save_model(
        path,
        python_model=str(code),
        signature=ModelSignature(
            inputs=Schema([ColSpec("double", name) for name in ODD_NAMES])
        ),
        pip_requirements=["pandas"],
    )


def save_typed(path: Path) -> None:
    """Python code that takes pydantic rows with a rule of their own."""
    _save_code(path, TYPED_CODE, [{"name": "a", "size": 1, "tags": ["x"]}])


def save_maps(path: Path) -> None:
    """Python code that takes objects with any members."""
    _save_code(path, MAPS_CODE, [{"a": 1.0, "b": 2.0}])


def save_lists(path: Path) -> None:
    """Python code over columns of lists; its input example is one row."""
    _save_code(path, LISTS_CODE, {"a": ["x", "y"], "b": ["z"]})


def _save_code(path: Path, code: str, example: object) -> None:
    import mlflow.pyfunc

    file = path.with_suffix(".py")
    file.write_text(code)
    mlflow.pyfunc.save_model(
        path, python_model=str(file), input_example=example, pip_requirements=["pandas"]
    )


TYPED_CODE = """
import mlflow
import pydantic


class Row(pydantic.BaseModel):
    name: str
    size: float = pydantic.Field(ge=0)
    tags: list[str]
    note: str | None = None


class Typed(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[Row]) -> list[str]:
        return [f"{r.name} {r.size} {r.tags} {r.note}" for r in model_input]


mlflow.models.set_model(Typed())
"""
MAPS_CODE = """
import mlflow


class Maps(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[dict[str, float]]) -> list[float]:
        return [sum(row.values()) for row in model_input]


mlflow.models.set_model(Maps())
"""
LISTS_CODE = """
import mlflow


class Lists(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: dict[str, list[str]]) -> list[str]:
        return ["/".join([*a, *b]) for a, b in zip(model_input["a"], model_input["b"])]


mlflow.models.set_model(Lists())
"""
ODD_NAMES = ('size 27"', "a\\b", "line\nbreak")
NAMES_CODE = """
import mlflow


class Weigh(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return (model_input * [1, 10, 100]).sum(axis=1).tolist()


mlflow.models.set_model(Weigh())
"""
TEXT_CODE = """
import mlflow
import pandas


class Shout(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        params = params or {}
        text = model_input["text"].str.upper() * params["times"] + params["end"]
        return pandas.DataFrame({"loud": text, "length": text.str.len()})


mlflow.models.set_model(Shout())
"""
