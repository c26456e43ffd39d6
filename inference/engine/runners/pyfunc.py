"""Any MLflow flavor, through `mlflow.pyfunc`. Loading runs the artifact's code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.engine.messages import VersionToLoad
from inference.engine.signature import Layout, Signature
from inference.engine.tensors import DTYPES, TEXT, Array, Tensor

if TYPE_CHECKING:
    import torch


def accepts(version: VersionToLoad) -> bool:
    return "python_function" in version.flavors and Path(version.path).is_dir()


def load(version: VersionToLoad, signature: Signature, device: str) -> "PyfuncRunner":
    # Deferred: mlflow takes over a second, and only such versions need it.
    import mlflow.pyfunc

    config = {"device": device} if "pytorch" in version.flavors else None
    model = mlflow.pyfunc.load_model(version.path, model_config=config)
    return PyfuncRunner(model, signature)


class PyfuncRunner:
    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None" = None

    def __init__(self, model: Any, signature: Signature) -> None:
        self._model = model
        self._signature = signature

    def warm_up(self, tensors: Sequence[Tensor]) -> None:
        self.run(tensors)

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return to_tensors(self._model.predict(self._model_input(tensors)))

    def _model_input(self, tensors: Sequence[Tensor]) -> Any:
        if self._signature.layout is not Layout.TABLE:
            # Models may write into their input; what arrived is read-only.
            data = tensors[0].data
            return data if data.flags.writeable else data.copy()
        import pandas

        columns = {tensor.name: tensor.data for tensor in tensors}
        order = [
            column.name for column in self._signature.columns if column.name in columns
        ]
        return pandas.DataFrame({name: columns[name] for name in order})

    def unload(self) -> None:
        self._model = None


def to_tensors(outputs: Any) -> tuple[Tensor, ...]:
    """Turn what a Python model returns into named tensors.

    A table gives one tensor per column, a dict one per entry, all else "output".
    """
    if hasattr(outputs, "columns"):  # a DataFrame, without importing pandas
        return tuple(
            Tensor(str(name), _array(outputs[name].to_numpy()))
            for name in outputs.columns
        )
    if isinstance(outputs, dict):
        return tuple(
            Tensor(str(name), _array(value)) for name, value in outputs.items()
        )
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], dict):
        return tuple(
            Tensor(str(name), _array([row.get(name) for row in outputs]))
            for name in outputs[0]
        )
    return (Tensor("output", _array(outputs)),)


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().numpy()
    elif hasattr(value, "to_numpy"):  # a Series
        value = value.to_numpy()
    array = np.array(value)
    if array.dtype in DTYPES.values():
        return array
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype == object:
        items = array.ravel()
        for index, item in enumerate(items):
            if item != item:
                items[index] = None
        if all(item is None or isinstance(item, str) for item in items):
            return items.reshape(array.shape)
    raise ValueError(
        f"The model gave values of type {array.dtype}, which cannot be sent; numbers, "
        f"booleans and text ({TEXT}) can."
    )
