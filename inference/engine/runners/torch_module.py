"""Load a pickled torch module, as MLflow logs it with `serialization_format="pickle"`.

Unpickling runs the artifact's code. The pyfunc runner loads modules that take tables
or parameters, because MLflow prepares their input.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engine.devices import opening
from inference.engine.runners import own_code, torch_script
from inference.engine.runners.torch_runner import TorchRunner
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.messages import VersionToLoad

if TYPE_CHECKING:
    import torch

_MODULE = Path("data", "model.pth")


def accepts(version: VersionToLoad) -> bool:
    return (
        "pytorch" in version.flavors
        and takes_tensors_only(version)
        and (Path(version.path) / _MODULE).is_file()
        and not torch_script.accepts(version)
    )


def takes_tensors_only(version: VersionToLoad) -> bool:
    signature = version.signature
    return signature.get("layout") != Layout.TABLE and not signature.get("params")


def load(version: VersionToLoad, signature: Signature, device: str) -> TorchRunner:
    # Deferred: mlflow takes over a second to import. It finds the artifact's own Python
    # code and the pickle module that wrote it.
    own_code.import_libraries("mlflow.pytorch")
    import mlflow.pytorch

    place = opening.open_device(device).torch_device
    model = mlflow.pytorch.load_model(
        version.path, map_location=place, weights_only=False
    )
    if not callable(getattr(model, "forward", None)):
        raise ValueError(
            f"It holds a {type(model).__name__}, which is no torch module."
        )
    module = model.to(place).eval()
    return TorchRunner(by_name(module, signature), device, signature)


def by_name(module: "torch.nn.Module", signature: Signature) -> "torch.nn.Module":
    """Return a module that passes several inputs by name, if `forward` has the names.

    Otherwise inputs are passed in the signature's order.
    """
    names = [tensor.name for tensor in signature.inputs]
    arguments = list(inspect.signature(module.forward).parameters)
    if len(names) < 2 or names == arguments[: len(names)]:
        return module
    if not set(names) <= set(arguments):
        return module
    import torch

    class ByName(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: "torch.Tensor") -> Any:
            return self.module(**dict(zip(names, tensors, strict=True)))

    return ByName()
