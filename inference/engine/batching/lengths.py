"""Pad requests of different lengths to share a batch, and cut their outputs back.

`padding` holds the rule. Outputs are cut on the axes that the signature declares as -1.
If two lengths of a request were padded to the same bucket, the longer one counts.
"""

from typing import NamedTuple

from inference.engine.batching.entry import BatchAnswer, Entry, Layout
from inference.engine.signatures import checks, padding
from inference.engine.signatures.padding import Padding, TooLong
from inference.engine.signatures.signature import Layout as SignatureLayout
from inference.engine.signatures.signature import Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Tensor

# Plans remembered per version; for other lengths a plan is made each time.
_MAX_PLANS = 1024


class Plan(NamedTuple):
    """How to pad requests of one layout, and cut their outputs."""

    # Shapes per row after padding, one per tensor.
    shapes: tuple[tuple[int, ...], ...]
    layout: Layout
    # Padded length → original length, if they differ.
    lengths: dict[int, int]
    outputs: tuple[tuple[int, ...], ...]

    def cut(self, answer: BatchAnswer, start: int, rows: int) -> BatchAnswer:
        """Return one request's rows, with its original lengths."""
        return BatchAnswer(
            tuple(
                Tensor(tensor.name, tensor.data[self._part(index, tensor, start, rows)])
                for index, tensor in enumerate(answer.tensors)
            ),
            answer.compute_us,
            answer.rows,
        )

    def _part(
        self, index: int, tensor: Tensor, start: int, rows: int
    ) -> tuple[slice, ...]:
        parts = [slice(start, start + rows)]
        declared = self.outputs[index] if index < len(self.outputs) else ()
        for size, wanted in zip(tensor.data.shape[1:], declared, strict=False):
            parts.append(slice(self.lengths.get(size, size) if wanted == -1 else size))
        return tuple(parts)


class VariableLengths:
    """The padding of one loaded version whose signature lets lengths vary."""

    def __init__(self, signature: Signature, rule: Padding) -> None:
        self._signature = signature
        self._rule = rule
        self._plans: dict[Layout, Plan] = {}
        shapes = signature.row_shapes
        self._declared = (
            {each.name: each.shape for each in signature.inputs}
            if signature.layout is SignatureLayout.TENSORS
            else {}
        )
        self._only = shapes[0] if len(shapes) == 1 else ()

    def admit(self, entry: Entry) -> None:
        """Check an entry and pad it; raise EngineError BAD_REQUEST."""
        plan = self._plans.get(entry.layout)
        if plan is None:
            checks.check_layout(self._signature, entry.tensors)
            plan = self._plan(entry)
            if len(self._plans) < _MAX_PLANS:
                self._plans[entry.layout] = plan
        if not plan.lengths:
            return
        entry.tensors = [
            Tensor(
                tensor.name,
                padding.fill_up(tensor.data, shape, self._rule.fill(tensor.name)),
            )
            for tensor, shape in zip(entry.tensors, plan.shapes, strict=True)
        ]
        entry.nbytes = sum([tensor.data.nbytes for tensor in entry.tensors])
        entry.layout = plan.layout
        entry.cut = plan.cut

    def _plan(self, entry: Entry) -> Plan:
        shapes = []
        lengths: dict[int, int] = {}
        for tensor in entry.tensors:
            sizes = []
            declared = self._declared.get(tensor.name, self._only)
            for size, wanted in zip(tensor.data.shape[1:], declared, strict=True):
                filled = self._bucket(size) if wanted == -1 else size
                if filled != size:
                    lengths[filled] = max(size, lengths.get(filled, 0))
                sizes.append(filled)
            shapes.append(tuple(sizes))
        parts = entry.layout[: len(shapes)]
        layout = (
            *[
                (name, dtype, shape)
                for (name, dtype, _), shape in zip(parts, shapes, strict=True)
            ],
            *entry.layout[len(shapes) :],
        )
        return Plan(tuple(shapes), layout, lengths, self._signature.output_shapes)

    def _bucket(self, size: int) -> int:
        try:
            return self._rule.bucket(size)
        except TooLong as error:
            raise EngineError(EngineErrorCode.BAD_REQUEST, str(error)) from error


def of(signature: Signature) -> VariableLengths | None:
    """Return what pads a version's requests; None if it needs no padding."""
    if signature.padding is None:
        return None
    if not any(-1 in shape for shape in signature.row_shapes):
        return None
    return VariableLengths(signature, signature.padding)
