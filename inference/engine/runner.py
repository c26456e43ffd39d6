"""One loaded version on one device: what a runner is, and which one to take."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np

from inference.engine import example
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import VersionToLoad
from inference.engine.runners import pyfunc, torch_export
from inference.engine.signature import Layout, Signature
from inference.engine.tensors import Tensor, dtype_name

if TYPE_CHECKING:
    import torch


class Runner(Protocol):
    """`load → warm_up → run → unload`; `run` is never called concurrently.

    `torch_function` maps `[rows, *shape]` to outputs and can be differentiated; it is
    None where the model is not one torch function.
    """

    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None"

    def warm_up(self, tensors: Sequence[Tensor]) -> None: ...

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]: ...

    def unload(self) -> None: ...


class RunnerKind(NamedTuple):
    """How to recognise and load one kind of artifact."""

    accepts: Callable[[VersionToLoad], bool]
    # May raise anything; the message of a ValueError is shown to operators.
    load: Callable[[VersionToLoad, Signature, str], Runner]
    # Does loading run code from the artifact?
    needs_trust: bool


# The first that accepts a version loads it.
RUNNERS: dict[str, RunnerKind] = {
    "torch_export": RunnerKind(
        torch_export.accepts, torch_export.load, needs_trust=False
    ),
    "pyfunc": RunnerKind(pyfunc.accepts, pyfunc.load, needs_trust=True),
}


class Loaded(NamedTuple):
    runner: Runner
    signature: Signature


def load(version: VersionToLoad, device: str) -> Loaded:
    """Load a version and prove on its own example that it answers.

    Raises EngineError LOAD_FAILED with a sentence for the person who logged it.
    """
    try:
        signature = msgspec.convert(version.signature, Signature)
        runner = _choose(version).load(version, signature, device)
        _prove(runner, signature, Path(version.path))
    except EngineError:
        raise
    except ValueError as error:
        raise _failed(version, str(error)) from error
    except Exception as error:
        raise _failed(version, f"{type(error).__name__}: {error}") from error
    return Loaded(runner, signature)


def _failed(version: VersionToLoad, reason: str) -> EngineError:
    return EngineError(
        EngineErrorCode.LOAD_FAILED, f"{version.key} was not loaded: {reason}"
    )


def _choose(version: VersionToLoad) -> RunnerKind:
    for kind in RUNNERS.values():
        if not kind.accepts(version):
            continue
        if kind.needs_trust and not version.trusted:
            raise ValueError(
                "Its artifact holds Python code or pickles, which run when it is "
                "loaded. An administrator can mark the model as trusted, or it can "
                "be logged in the .pt2 format."
            )
        return kind
    raise ValueError(
        f"No runner reads the flavors {', '.join(version.flavors) or '(none)'}."
    )


def _prove(runner: Runner, signature: Signature, path: Path) -> None:
    tensors = example.read(path, signature)
    if tensors is None:
        tensors = example.zeros(signature)
    if tensors is None:
        return
    runner.warm_up(tensors)
    rows = len(tensors[0].data)
    outputs = runner.run(tensors)
    check_outputs(outputs, rows)
    expected = example.read_outputs(path)
    if expected is not None:
        example.compare(outputs, expected, tolerance=signature.example_tolerance)
    if signature.layout is not Layout.TABLE:
        # One row and two must work too, whatever the example's length was.
        for count in (1, 2):
            check_outputs(runner.run(example.tile(tensors, count)), count)


def check_outputs(outputs: Sequence[Tensor], rows: int) -> None:
    """Raise ValueError unless outputs can be sent and have one entry per row."""
    if not outputs:
        raise ValueError("The model gave no output.")
    for tensor in outputs:
        if tensor.data.ndim == 0 or len(tensor.data) != rows:
            got = "a scalar" if tensor.data.ndim == 0 else f"{len(tensor.data)} rows"
            raise ValueError(f"The model gave {got} for {rows} rows.")
        dtype_name(tensor.data)


def concatenate(batches: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Join the rows of requests or answers of one layout."""
    if len(batches) == 1:
        return tuple(batches[0])
    return tuple(
        Tensor(first.name, np.concatenate([batch[index].data for batch in batches]))
        for index, first in enumerate(batches[0])
    )
