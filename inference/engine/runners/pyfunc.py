"""Run any MLflow flavor through `mlflow.pyfunc`; loading runs the artifact's code."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engine.runners import own_code
from inference.engine.runners.outputs import finish
from inference.engine.runners.pyfunc_inputs import InputMaker, params_of
from inference.engine.runners.pyfunc_outputs import (
    DeclaredKind,
    as_declared,
    declared_kinds,
    plain,
    to_tensors,
)
from inference.engine.signatures.signature import Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Params, VersionToLoad
from inference.engine.wire.tensors import Tensor

if TYPE_CHECKING:
    import torch

# MLflow's error codes for input that the model does not accept.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})


def accepts(version: VersionToLoad) -> bool:
    return "python_function" in version.flavors and Path(version.path).is_dir()


def load(version: VersionToLoad, signature: Signature, device: str) -> "PyfuncRunner":
    # Deferred: mlflow takes over a second to import, and other runners do not need it.
    own_code.import_libraries("mlflow.pyfunc")
    for reader in _readers(version.flavors):
        # It may be missing if the artifact brings a loader of its own.
        with contextlib.suppress(ImportError):
            own_code.import_libraries(reader)
    import mlflow.pyfunc

    config = {"device": device} if "pytorch" in version.flavors else None
    model = mlflow.pyfunc.load_model(
        version.path,
        # What is missing was named before; MLflow would read all packages for that.
        suppress_warnings=True,
        model_config=config,
    )
    schema = model.metadata.get_input_schema()
    labels = None if schema is None else _labels(schema)
    kinds = declared_kinds(model.metadata.get_output_schema())
    # Requests have been checked against the signature. MLflow would check them again,
    # more slowly, and refuse integer columns with missing values.
    model.metadata.signature = _params_only(model.metadata.signature)
    inputs = InputMaker(signature, labels=labels)
    if _streams(model):
        return StreamingPyfuncRunner(model, signature, inputs, kinds)
    return PyfuncRunner(model, signature, inputs, kinds)


def _readers(flavors: Sequence[str]) -> list[str]:
    """Return MLflow's modules that read the flavors, as far as it has them."""
    names = [f"mlflow.{flavor}" for flavor in flavors if flavor.isidentifier()]
    return [name for name in names if util.find_spec(name) is not None]


def _labels(schema: Any) -> list[str | int]:
    """Return the labels of the columns in the model's own table; some are numbers."""
    # Not `input_names`, which treats the label 0 as missing.
    return [
        place if spec.name is None else spec.name
        for place, spec in enumerate(schema.inputs)
    ]


def _params_only(signature: Any) -> Any:
    from mlflow.models import ModelSignature

    if signature is None or signature.params is None:
        return None
    return ModelSignature(params=signature.params)


def _streams(model: Any) -> bool:
    """Return whether a model is a PythonModel with its own `predict_stream`."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.model import PythonModel

    try:
        python_model = model.unwrap_python_model()
    except MlflowException:
        return False
    own = getattr(type(python_model), "predict_stream", None)
    return own is not None and own is not PythonModel.predict_stream


class PyfuncRunner:
    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None" = None

    def __init__(
        self,
        model: Any,
        signature: Signature,
        inputs: InputMaker | None = None,
        kinds: Mapping[str, DeclaredKind] | None = None,
    ) -> None:
        """Make a runner whose outputs always have the `kinds` of their names."""
        self._model = model
        self._kinds = kinds or {}
        self._signature = signature
        self._inputs = inputs or InputMaker(signature)

    def warm_up(self, tensors: Sequence[Tensor]) -> None:
        self.run(tensors)

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.run_with(tensors, None)

    def run_with(
        self, tensors: Sequence[Tensor], params: Params | None
    ) -> tuple[Tensor, ...]:
        data = self._inputs.make(tensors)
        complete = params_of(self._signature, params)
        from mlflow.exceptions import MlflowException

        try:
            outputs = (
                self._model.predict(data)
                if complete is None
                else self._model.predict(data, params=complete)
            )
        except MlflowException as error:
            # Typed Python models check more than the signature does.
            if error.error_code not in _REFUSALS:
                raise
            # The exception repeats the input, which must not be logged.
            message = "it breaks a rule of the model's own code"
            raise EngineError(EngineErrorCode.BAD_REQUEST, message) from error
        signature = self._signature
        named = to_tensors(outputs, rows=len(tensors[0].data), names=signature.outputs)
        return finish(as_declared(named, self._kinds), signature)

    def unload(self) -> None:
        self._model = None


class StreamingPyfuncRunner(PyfuncRunner):
    def stream(
        self, tensors: Sequence[Tensor], params: Params | None
    ) -> Generator[Any, None, None]:
        """Yield the chunks for one row; closing it closes the model's generator."""
        chunks = self._model.predict_stream(
            self._inputs.make(tensors), params=params_of(self._signature, params)
        )
        try:
            for chunk in chunks:
                yield plain(chunk)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
