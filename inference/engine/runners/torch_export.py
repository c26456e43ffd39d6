"""Load MLflow's default format for PyTorch: an exported program, `data/model.pt2`."""

from pathlib import Path
from typing import TYPE_CHECKING

from inference.engine.devices import opening
from inference.engine.runners import exported_program, own_code
from inference.engine.runners.torch_runner import TorchRunner
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.messages import VersionToLoad

if TYPE_CHECKING:
    import torch

# What loading needs. Importing them takes longer than loading itself.
LIBRARIES = ("torch._export.serde.serialize", "torch.export.pt2_archive._package")
_PROGRAM = Path("data", "model.pt2")


def accepts(version: VersionToLoad) -> bool:
    return "pytorch" in version.flavors and (Path(version.path) / _PROGRAM).is_file()


def prepare() -> None:
    own_code.import_libraries(*LIBRARIES)


def load(version: VersionToLoad, signature: Signature, device: str) -> TorchRunner:
    """Load a program without running any of the artifact's code; raise ValueError."""
    if signature.layout is Layout.TABLE:
        raise ValueError(
            "A torch model takes tensors; its signature names columns of several types."
        )
    prepare()
    program = exported_program.load(Path(version.path) / _PROGRAM)
    _check_sizes(program, signature)
    place = opening.open_device(device).torch_device
    if place.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, place)
    module = program.module(check_guards=False)
    _pass_arguments_plainly(program, module)
    return TorchRunner(
        module,
        device,
        signature,
        after_first_run=lambda: _drop_checks(module),
    )


def _drop_checks(module: "torch.fx.GraphModule") -> None:
    """Remove torch's own checks of shapes and ranges, once the example has passed.

    They cost more than a small model, and every request has been checked against the
    signature already.
    """
    module._forward_pre_hooks.clear()
    module._forward_pre_hooks_with_kwargs.clear()


def _check_sizes(program: "torch.export.ExportedProgram", signature: Signature) -> None:
    """Raise ValueError if a size is fixed that the signature lets vary."""
    import torch

    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        value.shape if isinstance(value := node.meta.get("val"), torch.Tensor) else ()
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]
    if len(shapes) != len(signature.row_shapes):
        raise ValueError(
            f"It takes {len(shapes)} inputs, its signature has "
            f"{len(signature.row_shapes)}."
        )
    for shape, declared in zip(shapes, signature.row_shapes, strict=True):
        if not shape or not isinstance(shape[0], torch.SymInt):
            raise ValueError(
                "It was exported for a fixed number of rows; log it with an input "
                "example of more than one row."
            )
        for size, wanted in zip(shape[1:], declared, strict=False):
            if wanted == -1 and not isinstance(size, torch.SymInt):
                raise ValueError(
                    f"It was exported for rows of length {int(size)}, which its "
                    "signature lets vary."
                )


def _pass_arguments_plainly(
    program: "torch.export.ExportedProgram", module: "torch.fx.GraphModule"
) -> None:
    """Skip packing the arguments if inputs and outputs are plain tensors.

    Packing takes as long as a small model.
    """
    import torch

    arguments, results = program.call_spec
    if arguments is None or results is None or arguments.child(1).num_leaves:
        return
    if not all(child.is_leaf() for child in arguments.child(0).children()):
        return
    if results.is_leaf() or (
        results.type in (tuple, list)
        and all(child.is_leaf() for child in results.children())
    ):
        module.graph.set_codegen(torch.fx.graph.CodeGen())
        module.recompile()
