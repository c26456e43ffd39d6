"""MLflow's default for PyTorch: a program exported to `data/model.pt2`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.engine.messages import VersionToLoad
from inference.engine.runners import exported_program
from inference.engine.signature import Layout, Signature
from inference.engine.tensors import Array, Tensor

if TYPE_CHECKING:
    import torch

_PROGRAM = Path("data", "model.pt2")


def accepts(version: VersionToLoad) -> bool:
    return "pytorch" in version.flavors and (Path(version.path) / _PROGRAM).is_file()


def prepare() -> None:
    """Import what loading needs, which takes longer than loading."""
    from torch._export.serde import serialize
    from torch.export.pt2_archive import _package

    assert serialize
    assert _package


def load(
    version: VersionToLoad, signature: Signature, device: str
) -> "TorchExportRunner":
    """Load without running any code of the artifact; raise ValueError."""
    # Deferred: torch takes a second, and the engine listens before that.
    import torch

    if signature.layout is Layout.TABLE:
        raise ValueError(
            "A torch model takes one tensor; its signature names columns of several "
            "types."
        )
    program = exported_program.load(Path(version.path) / _PROGRAM)
    if not _takes_any_number_of_rows(program):
        raise ValueError(
            "It was exported for a fixed number of rows; log it with an input "
            "example of more than one row."
        )
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module = program.module(check_guards=False)
    _pass_arguments_plainly(program, module)
    return TorchExportRunner(module, torch.device(device), signature)


def _takes_any_number_of_rows(program: "torch.export.ExportedProgram") -> bool:
    import torch

    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            value = node.meta.get("val")
            return isinstance(value, torch.Tensor) and isinstance(
                value.shape[0] if value.ndim else None, torch.SymInt
            )
    return False


def _pass_arguments_plainly(
    program: "torch.export.ExportedProgram", module: "torch.fx.GraphModule"
) -> None:
    """Call a graph of one tensor in and plain tensors out without packing arguments.

    Packing takes as long as a small model itself.
    """
    import torch

    arguments, results = program.call_spec
    if arguments is None or results is None or arguments.num_leaves != 1:
        return
    if not all(child.is_leaf() for child in arguments.child(0).children()):
        return
    if results.is_leaf() or (
        results.type in (tuple, list)
        and all(child.is_leaf() for child in results.children())
    ):
        module.graph.set_codegen(torch.fx.graph.CodeGen())
        module.recompile()


class TorchExportRunner:
    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None"

    def __init__(
        self, module: "torch.nn.Module", device: "torch.device", signature: Signature
    ) -> None:
        import torch

        self._torch = torch
        self._module = module
        self._device = device
        self._dtype = signature.dtype
        self.torch_function = self._differentiable

    def warm_up(self, tensors: Sequence[Tensor]) -> None:
        """Run once with torch's own checks of shapes and ranges, then without.

        They cost more than a small model itself, and the batcher has checked every
        request against the signature by then.
        """
        self.run(tensors)
        self._module._forward_pre_hooks.clear()
        self._module._forward_pre_hooks_with_kwargs.clear()
        self.run(tensors)

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        torch = self._torch
        data = tensors[0].data
        if not data.flags.writeable or not data.flags.aligned:
            data = data.copy()
        with torch.inference_mode():
            rows = torch.from_numpy(np.ascontiguousarray(data))
            if self._device.type != "cpu":
                rows = rows.to(self._device, non_blocking=True)
            outputs = self._module(rows)
            return tuple(
                Tensor(name, self._array(value)) for name, value in _named(outputs)
            )

    def _array(self, value: "torch.Tensor") -> Array:
        if value.dtype is self._torch.bfloat16:  # numpy has no such type
            value = value.float()
        array: Array = value.detach().cpu().numpy()
        return array

    def _differentiable(self, rows: "torch.Tensor") -> "torch.Tensor":
        outputs = self._module(rows.to(self._device))
        first: torch.Tensor = _named(outputs)[0][1]
        return first

    def unload(self) -> None:
        self.torch_function = None
        del self._module
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()


def _named(outputs: Any) -> list[tuple[str, Any]]:
    """Name what a model returns: a tensor, a sequence or a dict of tensors."""
    if isinstance(outputs, dict):
        return [(str(name), value) for name, value in outputs.items()]
    if isinstance(outputs, tuple | list):
        if len(outputs) == 1:
            return [("output", outputs[0])]
        return [(f"output_{index}", value) for index, value in enumerate(outputs)]
    return [("output", outputs)]
