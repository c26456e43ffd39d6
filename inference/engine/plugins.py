"""Explainers: named by dotted path, loaded when needed, run beside predictions."""

import importlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import ExplainOptions, Explanation
from inference.engine.signature import Signature
from inference.engine.tensors import Tensor

if TYPE_CHECKING:
    import torch

logger = structlog.get_logger()

_RETRY_AFTER_MS = 1000


class ExplainResult(msgspec.Struct, frozen=True):
    """One explanation per row; `samples` are forward passes, summed over rows."""

    explanations: tuple[Explanation, ...]
    samples: int
    svg: str | None = None


class ExplainableModel(Protocol):
    """What an explainer sees of a loaded version.

    `predict` shares the device with the callers' predictions, in pieces, and raises
    EngineError once the deadline has passed. `torch_function` maps `[rows, *shape]`
    to outputs and can be differentiated. `cache` lives as long as the version.
    """

    signature: Signature
    path: Path
    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None"
    cache: dict[str, Any]  # belongs to the explainer, which alone knows its types

    def predict(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]: ...


class Explainer(Protocol):
    """A plug-in; raises EngineError NOT_EXPLAINABLE or BAD_REQUEST."""

    def __call__(
        self,
        model: ExplainableModel,
        tensors: tuple[Tensor, ...],
        options: ExplainOptions,
    ) -> ExplainResult: ...


class ExplainTask:
    """One accepted explanation, ended by `future`."""

    def __init__(
        self,
        model: ExplainableModel,
        tensors: tuple[Tensor, ...],
        options: ExplainOptions,
        *,
        deadline: float,
    ) -> None:
        self.model = model
        self.tensors = tensors
        self.options = options
        self.deadline = deadline
        self.future: Future[ExplainResult] = Future()


class ExplainThread:
    """Runs explanations one after another in a thread of its own."""

    def __init__(
        self,
        plugins: Sequence[str],
        *,
        max_waiting: int,
        clock: Callable[[], float],
    ) -> None:
        self._plugins = plugins
        self._clock = clock
        self._tasks: Queue[ExplainTask | None] = Queue(max_waiting)
        self._explainer: Explainer | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, task: ExplainTask) -> None:
        """Queue a task; raise EngineError OVERLOADED if too many wait."""
        self._start()
        try:
            self._tasks.put_nowait(task)
        except Full:
            raise EngineError(
                EngineErrorCode.OVERLOADED,
                f"{self._tasks.maxsize} explanations are waiting already",
                retry_after_ms=_RETRY_AFTER_MS,
            ) from None

    def warm_up(self) -> None:
        """Import the explainer now, in the thread, so that the first call is quick."""
        self._start()
        # Full means that tasks wait, and they import it as well.
        if not self._tasks.full():
            self._tasks.put_nowait(None)

    def close(self) -> None:
        """Refuse what still waits; the task in progress ends with the process."""
        self._closed = True
        while True:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                break
            if task is not None:
                _fail(task, EngineError(EngineErrorCode.DRAINING, "engine is closing"))

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="explain", daemon=True
            )
            self._thread.start()

    def _work(self) -> None:
        while not self._closed:
            task = self._tasks.get()
            if task is None:
                self._load()
            elif task.future.set_running_or_notify_cancel():
                self._run(task)
            del task  # or the thread would keep an unloaded version alive

    def _run(self, task: ExplainTask) -> None:
        explainer = self._load()
        if explainer is None:
            error = EngineError(
                EngineErrorCode.NOT_EXPLAINABLE, "this engine has no explainer"
            )
        elif task.deadline <= self._clock():
            error = EngineError(
                EngineErrorCode.DEADLINE_EXCEEDED, "the deadline passed in the queue"
            )
        else:
            self._explain(explainer, task)
            return
        _fail(task, error)

    def _explain(self, explainer: Explainer, task: ExplainTask) -> None:
        try:
            task.future.set_result(explainer(task.model, task.tensors, task.options))
        except EngineError as error:
            _fail(task, error)
        except (Exception, SystemExit) as cause:
            logger.exception("explain_failed", exception=type(cause).__name__)
            message = f"the explainer raised {type(cause).__name__}: {cause}"[:500]
            _fail(task, EngineError(EngineErrorCode.MODEL_ERROR, message))

    def _load(self) -> Explainer | None:
        if self._explainer is not None:
            return self._explainer
        for name in self._plugins:
            module_name, _, attribute = name.partition(":")
            try:
                module = importlib.import_module(module_name)
                explainer: Explainer = getattr(module, attribute)
                # Optional: heavy imports that the plug-in defers itself.
                getattr(module, "warm_up", lambda: None)()
            except Exception:
                logger.exception("plugin_failed", plugin=name)
                continue
            logger.info("plugin_loaded", plugin=name)
            self._explainer = explainer
            return explainer
        return None


def _fail(task: ExplainTask, error: EngineError) -> None:
    if not task.future.done():
        task.future.set_exception(error)
