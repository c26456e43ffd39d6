"""Cut the outputs of a batch into one reply frame per request."""

from inference.engine.batching.entry import BatchAnswer, Entry
from inference.engine.wire import frames, tensors
from inference.engine.wire.dtypes import TEXT
from inference.engine.wire.messages import Predicted, TensorHeader
from inference.engine.wire.tensors import Buffer, Tensor


class _Output:
    """One output tensor of a batch, as bytes from which each request gets a slice."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._dtype = tensors.dtype_name(tensor.data)
        self._row_bytes = tensor.data[:1].nbytes
        self._blob = b"" if self._dtype == TEXT else tensors.raw(tensor.data)

    def cut(self, start: int, stop: int) -> tuple[TensorHeader, Buffer]:
        data = self._tensor.data
        if self._dtype == TEXT:
            return tensors.encode(Tensor(self._tensor.name, data[start:stop]))
        size = self._row_bytes
        buffer = self._blob[start * size : stop * size]
        shape = (stop - start, *data.shape[1:])
        return TensorHeader(self._tensor.name, self._dtype, shape, len(buffer)), buffer


class ReplyWriter:
    """Write replies; convert the outputs of a batch to bytes only once."""

    def __init__(self) -> None:
        self._answer: BatchAnswer | None = None
        self._outputs: list[_Output] = []

    def encode(
        self, entry: Entry, answer: BatchAnswer, start: int, queue_us: int
    ) -> bytes:
        if answer is not self._answer:
            self._answer = answer
            self._outputs = [_Output(tensor) for tensor in answer.tensors]
        stop = start + entry.rows
        cuts = [output.cut(start, stop) for output in self._outputs]
        return frames.encode(
            Predicted(
                entry.id,
                tuple([header for header, _ in cuts]),
                queue_us,
                answer.compute_us,
                answer.rows,
            ),
            *[buffer for _, buffer in cuts],
        )
