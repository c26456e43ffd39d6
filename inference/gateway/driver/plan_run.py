"""Run the plan of one call in the gateway, for every protocol.

Callbacks drive it: an engine's reply or a written event continues the plan in the same
turn of the event loop. Only rare effects wait in a task.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import structlog

from inference.dialects.dialect import Call
from inference.engine.wire.errors import EngineError
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.driver.engines import UnderWay
from inference.prediction.effects import (
    Answer,
    CallAbandoned,
    Effect,
    EngineCall,
    NeedBody,
)

logger = structlog.get_logger(__name__)


class _Nobody:
    """Wait for no event: the client is gone."""

    def recorded(self) -> None: ...

    def unrecorded(self) -> None: ...


_NOBODY = _Nobody()


class PlanRun(ABC):
    """One run of the plan, until the usage event of its answer is written."""

    __slots__ = (
        "_answer",
        "_asked",
        "_call",
        "_driver",
        "_over",
        "_steps",
        "_task",
        "_under_way",
    )

    def __init__(self, driver: GatewayDriver) -> None:
        self._driver = driver
        # What an engine is asked for; it stays when `_under_way` ends.
        self._asked: EngineCall | None = None
        # Set while an engine predicts, and while any other effect is carried out.
        self._under_way: UnderWay | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False

    @abstractmethod
    def _body(self, effect: NeedBody) -> Any:
        """Return the body, or None if it has to be waited for; raises ApiError."""

    @abstractmethod
    def _give(self, answer: Answer) -> None:
        """Send an answer to the caller; its event is written."""

    @abstractmethod
    def _request_id(self) -> str: ...

    @abstractmethod
    def _received_bytes(self) -> int: ...

    # Called by engines and tasks

    def resume(self, value: Any) -> None:
        if not self._over:
            self._under_way = None
            self._go_on(self._steps.send, value)

    def fail(self, error: Exception) -> None:
        if self._over:
            return
        under_way, self._under_way = self._under_way, None
        if under_way is not None and self._asked is not None:
            engines = self._driver.engines
            try:
                self._under_way = engines.again(self._asked, under_way, error, self)
            except Exception as final:
                error = final
            else:
                return
        self._go_on(self._steps.throw, error)

    # Called by the recorder

    def recorded(self) -> None:
        answer = self._answer
        self._give(answer)
        if answer.copy is not None:
            try:
                self._driver.shadows.offer(answer.copy)
            except Exception:
                # The answers behind this one in the recorder have to leave.
                logger.exception("copy_not_taken")

    def unrecorded(self) -> None:
        self._driver.metrics.unrecorded += 1
        self._give(self._driver.plan.unrecorded(self._call, self._answer))

    @property
    def begun(self) -> bool:
        """Whether the plan has started."""
        return hasattr(self, "_steps")

    def _begin(self, call: Call) -> None:
        self._call = call
        self._steps = self._driver.plan.steps(call)
        self._go_on(self._steps.send, None)

    def _go_on(self, step: Callable[[Any], Effect], value: Any) -> None:
        try:
            while True:
                effect = step(value)
                try:
                    kind = type(effect)
                    if kind is EngineCall:
                        self._asked = effect  # type: ignore[assignment]
                        self._under_way = self._driver.engines.begin(effect, self)  # type: ignore[arg-type]
                        return
                    if kind is not NeedBody:
                        self._task = asyncio.get_running_loop().create_task(
                            self._wait_for(effect)
                        )
                        return
                    body = self._body(effect)  # type: ignore[arg-type]
                except (ApiError, EngineError) as error:
                    step, value = self._steps.throw, error
                    continue
                if body is None:
                    return
                step, value = self._steps.send, body
        except StopIteration as stop:
            self._record(stop.value)
        except Exception:
            self._break()

    async def _wait_for(self, effect: Effect) -> None:
        try:
            value = await self._carry_out(effect)
        except (ApiError, EngineError, CallAbandoned) as error:
            self.fail(error)
        except Exception:
            self._break()
        else:
            self.resume(value)

    async def _carry_out(self, effect: Effect) -> Any:
        return await self._driver.carry_out(effect)

    def _record(self, answer: Answer) -> None:
        self._over = True
        event = answer.event
        if self._driver.calls is not None:
            self._driver.calls.note(self._call, answer, self._received_bytes())
        if event is None:
            self._driver.metrics.unauthenticated += 1
            self._give(answer)
            return
        self._driver.metrics.observe(event)
        self._answer = answer
        self._driver.recorder.record(event, self)

    def _break(self) -> None:
        """Log an unexpected failure, and answer INTERNAL_ERROR."""
        request_id = self._request_id()
        logger.exception("request_failed", request_id=request_id)
        self._end()
        error = ApiError(ErrorCode.INTERNAL_ERROR, "Something went wrong on our side.")
        status, headers, body = self._call.dialect.render(
            self._call, error, request_id=request_id, now=self._driver.clock()
        )
        self._give(Answer(status, headers, body, None))

    def _leave(self) -> None:
        """End a call whose client left; a rollout may have to know of it."""
        answer: Answer | None = None
        if self.begun:
            try:
                self._steps.throw(CallAbandoned())
            except StopIteration as stop:
                answer = stop.value
        self._end()
        if answer is not None and answer.event is not None:
            self._driver.metrics.observe(answer.event)
            self._driver.recorder.record(answer.event, _NOBODY)

    def _end(self) -> None:
        """Release all that the call holds, and stop the work for it."""
        self._over = True
        self._stop_waiting()
        if self.begun:
            self._steps.close()

    def _stop_waiting(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.abandon()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
