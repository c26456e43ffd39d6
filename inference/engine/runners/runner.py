"""Define what a runner is, and load a version with the right kind of runner."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np

from inference.engine.runners import (
    independence,
    own_code,
    pyfunc,
    torch_export,
    torch_module,
    torch_script,
)
from inference.engine.runners.independence import Independence
from inference.engine.runners.outputs import described
from inference.engine.signatures import example, similar_rows
from inference.engine.signatures.signature import Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode, VersionRefused
from inference.engine.wire.messages import OutputTensor, Params, VersionToLoad
from inference.engine.wire.tensors import Tensor, dtype_name

if TYPE_CHECKING:
    import torch


class Runner(Protocol):
    """One loaded version on one device: `load → warm_up → run → unload`.

    Calls of `run` overlap only up to `Loaded.depth`. `torch_function` maps
    `[rows, *shape]` to outputs and can be differentiated; it is None if the model is
    not one torch function.
    """

    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None"

    def warm_up(self, tensors: Sequence[Tensor]) -> None: ...

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]: ...

    def unload(self) -> None: ...


@runtime_checkable
class ParamsRunner(Runner, Protocol):
    """A runner whose model takes parameters; missing ones get their defaults."""

    def run_with(
        self, tensors: Sequence[Tensor], params: Params | None
    ) -> tuple[Tensor, ...]: ...


@runtime_checkable
class StreamRunner(Runner, Protocol):
    """A runner whose model answers one row chunk by chunk, in JSON values.

    Several threads may call `stream` at once; closing the generator frees what the
    model holds for it.
    """

    def stream(
        self, tensors: Sequence[Tensor], params: Params | None
    ) -> Generator[Any, None, None]: ...


class RunnerKind(NamedTuple):
    """How to recognise and load one kind of artifact."""

    accepts: Callable[[VersionToLoad], bool]
    # May raise anything; operators see the message of a ValueError.
    load: Callable[[VersionToLoad, Signature, str], Runner]
    # Code of the artifact that runs when it is loaded; empty: none.
    runs: str


# The first that accepts a version loads it.
RUNNERS: dict[str, RunnerKind] = {
    "torch_export": RunnerKind(torch_export.accepts, torch_export.load, runs=""),
    "torch_script": RunnerKind(
        torch_script.accepts, torch_script.load, runs="TorchScript code"
    ),
    "torch_module": RunnerKind(
        torch_module.accepts, torch_module.load, runs="a pickled torch module"
    ),
    "pyfunc": RunnerKind(pyfunc.accepts, pyfunc.load, runs="Python code or pickles"),
}


_FRAGILE = (
    "Its process died while it was loaded and checked with made-up rows, so whether "
    "rows are independent is not known."
)
_NOT_CHECKED = (
    "Its metadata says that it is not deterministic, so that nobody can check whether "
    "the answer to a row depends on the other rows."
)


class Loaded(NamedTuple):
    runner: Runner
    signature: Signature
    # Calls of `run` that may overlap: more than one if the device can copy in the next
    # batch while it computes.
    depth: int = 1
    # Described by running its example.
    outputs: tuple[OutputTensor, ...] = ()
    # Why its requests must not share batches; empty: they may.
    apart: str = ""


def load(version: VersionToLoad, device: str) -> Loaded:
    """Load a version and check that it answers its own example.

    Raises EngineError LOAD_FAILED with a message for the person who logged it.
    """
    try:
        signature = msgspec.convert(version.signature, Signature)
        kind = _choose(version)
        with own_code.alone(version.path) if kind.runs else nullcontext():
            runner = kind.load(version, signature, device)
        outputs, verdict = _prove(runner, signature, version, device)
    except EngineError:
        raise
    except ValueError as error:
        raise _failed(version, str(error)) from error
    except Exception as error:
        raise _failed(version, f"{type(error).__name__}: {error}") from error
    if verdict.changes and not kind.runs:
        # Nothing but its program answers, so this is a mistake, not a choice.
        runner.unload()
        raise _refused(
            version,
            f"{verdict.apart} Dropout may have been left on: call `model.eval()` "
            "before you log it. If it is meant to answer so, say `deterministic: "
            "false` in its metadata.",
        )
    depth = getattr(runner, "depth", 1)
    return Loaded(runner, signature, depth, outputs, verdict.apart)


def _failed(version: VersionToLoad, reason: str) -> EngineError:
    return EngineError(
        EngineErrorCode.LOAD_FAILED, f"{version.key} was not loaded: {reason}"
    )


def _refused(version: VersionToLoad, reason: str) -> VersionRefused:
    return VersionRefused(f"{version.key} was not loaded: {reason}")


def _choose(version: VersionToLoad) -> RunnerKind:
    for kind in RUNNERS.values():
        if not kind.accepts(version):
            continue
        if kind.runs and not version.trusted:
            raise _refused(
                version,
                f"Its artifact holds {kind.runs}, which can run anything when it is "
                "loaded. An administrator can mark the model as trusted, or it can "
                "be logged in the .pt2 format.",
            )
        return kind
    flavors = ", ".join(version.flavors) or "(none)"
    raise _refused(version, f"No runner reads the flavors {flavors}.")


def _prove(
    runner: Runner, signature: Signature, version: VersionToLoad, device: str
) -> tuple[tuple[OutputTensor, ...], Independence]:
    """Run its example; raise if the outputs are wrong, else describe and judge them."""
    path = Path(version.path)
    logged = example.read(path, signature)
    tensors = example.zeros(signature) if logged is None else logged
    if tensors is None:
        return (), _judge(runner, signature, version, logged, None, device)
    rows = len(tensors[0].data)
    params = example.read_params(path) if signature.params else None
    if isinstance(runner, StreamRunner):
        _prove_stream(runner, example.tile(tensors, 1), params)
    try:
        runner.warm_up(similar_rows.take(tensors, range(rows)))
    except NotImplementedError:
        if isinstance(runner, StreamRunner):
            return (), Independence()  # it only streams
        raise
    started = time.monotonic()
    outputs = run(runner, similar_rows.take(tensors, range(rows)), params)
    first_s = time.monotonic() - started
    check_outputs(outputs, rows)
    expected = example.read_outputs(path, signature.example_outputs)
    if expected is not None:
        example.compare(outputs, expected, tolerance=signature.example_tolerance)
    # Batches of one and of two rows must work too, whatever the example's length is.
    given = [outputs]
    for count in (1, 2):
        given.append(runner.run(example.tile(tensors, count)))
        check_outputs(given[-1], count)
    verdict = _judge(
        runner, signature, version, logged, params, device, first_s=first_s
    )
    return described(given, signature), verdict


def _judge(
    runner: Runner,
    signature: Signature,
    version: VersionToLoad,
    logged: Sequence[Tensor] | None,
    params: Params | None,
    device: str,
    *,
    first_s: float = 0.0,
) -> Independence:
    """Check whether the answer to a row depends on other rows, and so on callers."""
    if not version.deterministic:
        return Independence(_NOT_CHECKED)
    if version.fragile:
        return Independence(_FRAGILE)
    plain = similar_rows.plain_row(signature) if logged is None else logged
    if plain is None:
        return Independence()
    rows = independence.rows_in_time(first_s, len(plain[0].data))
    places = similar_rows.distinct(plain, rows)
    own = similar_rows.take(plain, places)
    label = "a made-up row" if logged is None else "row {} of its example"
    labels = [label.format(place + 1) for place in places]

    def batches() -> Iterator[tuple[Sequence[Tensor], Sequence[str]]]:
        missing = rows - len(places)
        if missing > 0:
            for longer in similar_rows.longer(
                own, signature, Path(version.path), rows=rows
            ):
                yield longer, labels + ["a made-up row"] * missing
        if len(places) == 1:
            yield example.tile(own, 2), labels * 2
        else:
            yield own, labels

    def answer(batch: Sequence[Tensor]) -> Sequence[Tensor]:
        outputs = run(runner, batch, params)
        check_outputs(outputs, len(batch[0].data))
        return outputs

    return independence.judge(
        answer,
        batches(),
        first_s=first_s,
        tolerance=independence.tolerance(signature, device),
    )


def _prove_stream(
    runner: "StreamRunner", tensors: Sequence[Tensor], params: Params | None
) -> None:
    chunks = runner.stream(tensors, params)
    try:
        next(chunks, None)
    finally:
        chunks.close()


def run(
    runner: Runner, tensors: Sequence[Tensor], params: Params | None
) -> tuple[Tensor, ...]:
    """Run with a caller's parameters, if there are any."""
    if params is None:
        return runner.run(tensors)
    if not isinstance(runner, ParamsRunner):
        raise EngineError(EngineErrorCode.BAD_REQUEST, "the model takes no parameters")
    return runner.run_with(tensors, params)


def check_outputs(outputs: Sequence[Tensor], rows: int) -> None:
    """Raise ValueError unless all outputs can be sent and have one entry per row."""
    if not outputs:
        raise ValueError("The model gave no output.")
    for tensor in outputs:
        if tensor.data.ndim == 0 or len(tensor.data) != rows:
            got = "a scalar" if tensor.data.ndim == 0 else f"{len(tensor.data)} rows"
            raise ValueError(f"The model gave {got} for {rows} rows.")
        dtype_name(tensor.data)


def concatenate(batches: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Join the rows of several requests, which must have the same layout."""
    if len(batches) == 1:
        return tuple(batches[0])
    return tuple(
        Tensor(first.name, np.concatenate([batch[index].data for batch in batches]))
        for index, first in enumerate(batches[0])
    )
