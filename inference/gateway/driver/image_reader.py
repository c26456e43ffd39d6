"""Decode images in two threads beside the event loop, with a bounded queue.

Customers take turns, and share the places in the queue.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from inference.codecs.images import read_images
from inference.codecs.rows.reader import DecodedRows
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.installation.shares import FairQueue
from inference.prediction.effects import ReadImages

# Pillow releases the GIL while it decodes. More threads would take processor time from
# the event loop, and memory for nothing.
_THREADS = 2
_RETRY_AFTER_S = 1.0


class ImageReader:
    """Decode the images of requests; refuse if more than `max_waiting` wait."""

    def __init__(self, *, max_pixels: int, max_waiting: int = 32) -> None:
        self._max_pixels = max_pixels
        self.waiting: FairQueue[asyncio.Future[None]] = FairQueue(max_waiting)
        self._busy = 0
        # Threads start with the first images.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")

    async def read(self, effect: ReadImages) -> DecodedRows:
        """Decode a request's images; raises ApiError OVERLOADED, INFERENCE_TIMEOUT."""
        deadline = time.monotonic() + effect.timeout_s
        try:
            async with asyncio.timeout(effect.timeout_s):
                await self._take_turn(effect.customer_id)
                work = self._threads.submit(
                    read_images,
                    effect.images,
                    max_pixels=self._max_pixels,
                    deadline=deadline,
                )
                loop = asyncio.get_running_loop()

                def over(_: object) -> None:
                    # The loop is closed when the gateway stops.
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(self._pass_turn_on)

                # This also runs if the caller left or waited too long.
                work.add_done_callback(over)
                return await asyncio.wrap_future(work)
        except TimeoutError:
            raise refusals.too_late() from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _take_turn(self, customer_id: int) -> None:
        """Wait for a free thread; raises ApiError OVERLOADED if too many wait."""
        if self._busy < _THREADS:
            self._busy += 1
            return
        turn = asyncio.get_running_loop().create_future()
        if not self.waiting.put(customer_id, turn):
            message = "More images wait to be decoded than fit in here. Try again."
            raise ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_AFTER_S)
        try:
            await turn
        except asyncio.CancelledError:
            self.waiting.remove(customer_id, turn)
            if turn.done() and not turn.cancelled():
                # The turn came just now, and is not needed any more.
                self._pass_turn_on()
            raise

    def _pass_turn_on(self) -> None:
        """Give the free thread to the next request that waits."""
        while (turn := self.waiting.take()) is not None:
            # Cancelled: its caller left in this turn of the loop.
            if not turn.done():
                turn.set_result(None)
                return
        self._busy -= 1
