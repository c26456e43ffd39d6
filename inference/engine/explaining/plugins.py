"""Load explainers by dotted path when needed, and run them beside predictions."""

import importlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog

from inference.engine.batching import execution, redaction
from inference.engine.devices import failures
from inference.engine.signatures.signature import Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Explained, ExplainOptions, Explanation
from inference.engine.wire.tensors import Tensor
from inference.installation.shares import FairQueue

if TYPE_CHECKING:
    import torch

logger = structlog.get_logger()

_RETRY_AFTER_MS = 1000


class ExplainResult(msgspec.Struct, frozen=True):
    """One explanation per row; `samples` counts the rows given to the model."""

    explanations: tuple[Explanation, ...]
    samples: int
    svg: str | None = None


class ExplainableModel(Protocol):
    """A loaded version, as an explainer may use it.

    `predict` runs in pieces between callers' predictions, and raises EngineError once
    the deadline has passed. `torch_function` maps `[rows, *shape]` to outputs and can
    be differentiated. `cache` lives as long as the version. `waited_s` is the time so
    far that `predict` waited for the device and the explainer for imports: nobody is
    charged for it.
    """

    signature: Signature
    path: Path
    torch_function: "Callable[[torch.Tensor], torch.Tensor] | None"
    cache: dict[str, Any]  # only the explainer uses it and knows its types
    waited_s: float

    def predict(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]: ...


class Explainer(Protocol):
    """A plug-in that explains; it raises EngineError NOT_EXPLAINABLE or BAD_REQUEST."""

    def __call__(
        self,
        model: ExplainableModel,
        tensors: tuple[Tensor, ...],
        options: ExplainOptions,
    ) -> ExplainResult: ...


class ExplainTask:
    """One accepted request for explanations; `future` gets the result.

    Its compute time does not include waiting, neither in the queue nor for the device.
    """

    def __init__(
        self,
        model: ExplainableModel,
        tensors: tuple[Tensor, ...],
        options: ExplainOptions,
        *,
        deadline: float,
        clock: Callable[[], float],
        customer_id: int = 0,
        request_id: str = "",
    ) -> None:
        self.model = model
        self.tensors = tensors
        self.options = options
        self.deadline = deadline
        self.customer_id = customer_id
        # The request's id, for the log.
        self.request_id = request_id
        self.future: Future[ExplainResult] = Future()
        self._clock = clock
        self._accepted_at = clock()
        self._queue_s = self._compute_s = 0.0

    def run(self, explainer: Explainer) -> ExplainResult:
        """Explain, and measure the time; raise what the explainer raises."""
        started = self._clock()
        result = explainer(self.model, self.tensors, self.options)
        waited = self.model.waited_s
        self._queue_s = started - self._accepted_at + waited
        self._compute_s = self._clock() - started - waited
        return result

    def explained(self, request_id: int, result: ExplainResult) -> Explained:
        """Return the reply for the result of `run`."""
        return Explained(
            request_id,
            result.explanations,
            int(self._compute_s * 1e6),
            result.samples,
            result.svg,
            int(self._queue_s * 1e6),
        )


class ExplainThread:
    """Run explanations one after another in a separate thread.

    Customers take turns, and share the places in the queue.
    """

    def __init__(
        self,
        plugins: Sequence[str],
        *,
        max_waiting: int,
        clock: Callable[[], float],
    ) -> None:
        self._plugins = plugins
        self._clock = clock
        self._changed = threading.Condition()
        # Use these three only while holding `_changed`.
        self._tasks: FairQueue[ExplainTask] = FairQueue(max_waiting)
        self._warming = self._closed = False
        self._explainer: Explainer | None = None
        self._thread: threading.Thread | None = None
        self.counters = {"refused_explanations": 0}

    def submit(self, task: ExplainTask) -> None:
        """Queue a task; raise EngineError OVERLOADED if too many wait."""
        self._start()
        with self._changed:
            accepted = self._tasks.put(task.customer_id, task)
            waiting, most = len(self._tasks), self._tasks.shares.most
            self._changed.notify()
        if not accepted:
            self.counters["refused_explanations"] += 1
            raise EngineError(
                EngineErrorCode.OVERLOADED,
                f"{waiting} explanations are waiting already, and a customer may only "
                "have as many as there are places left",
                retry_after_ms=_RETRY_AFTER_MS,
                of_customer=waiting < most,
            )
        task.future.add_done_callback(lambda _: self._forget(task))

    def warm_up(self) -> None:
        """Import the explainer in the thread now, so that the first call is quick."""
        self._start()
        with self._changed:
            self._warming = True
            self._changed.notify()

    def close(self) -> None:
        """Refuse all waiting tasks; the running one ends with the process."""
        with self._changed:
            self._closed = True
            waiting = iter(self._tasks.take, None)
            tasks = list(waiting)
            self._changed.notify()
        for task in tasks:
            _fail(task, EngineError(EngineErrorCode.DRAINING, "engine is closing"))

    def _forget(self, task: ExplainTask) -> None:
        """Free the place of a task whose caller left while it waited."""
        with self._changed:
            self._tasks.remove(task.customer_id, task)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="explain", daemon=True
            )
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._warming or len(self._tasks)
                )
                if self._closed:
                    return
                self._warming = False
                task = self._tasks.take()
            if task is None:
                self._load()
            elif task.future.set_running_or_notify_cancel():
                self._run(task)
            del task  # otherwise the thread would keep an unloaded version alive

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
            task.future.set_result(task.run(explainer))
        except EngineError as error:
            logger.info(
                "not_explained",
                code=error.code,
                reason=error.message,
                path=str(task.model.path),
                request_id=task.request_id,
            )
            _fail(task, error)
        except (Exception, SystemExit) as cause:
            reason = redaction.redacted(failures.said(cause), [task.tensors])
            logger.error(
                "explain_failed",
                path=str(task.model.path),
                request_id=task.request_id,
                exception=type(cause).__name__,
                reason=reason,
                trace=execution.trace_of(cause),
            )
            message = f"the explainer raised {type(cause).__name__}: {reason}"[:500]
            _fail(task, EngineError(EngineErrorCode.MODEL_ERROR, message))

    def _load(self) -> Explainer | None:
        if self._explainer is not None:
            return self._explainer
        for name in self._plugins:
            module_name, _, attribute = name.partition(":")
            try:
                module = importlib.import_module(module_name)
                explainer: Explainer = getattr(module, attribute)
                # Optional: do the slow imports that the plug-in defers.
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
