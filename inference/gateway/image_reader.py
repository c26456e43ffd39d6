"""Pictures decoded beside the event loop: in few threads, with few waiting."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from inference import refusals
from inference.effects import ReadImages
from inference.errors import ApiError, ErrorCode
from inference.images import read_images
from inference.row_by_row import DecodedRows

# Pillow lets go of the interpreter while it decodes; more threads than this would
# take the processor from the loop and memory for nothing.
_THREADS = 2
_RETRY_AFTER_S = 1.0


class ImageReader:
    """Reads the pictures of requests. Bounded: beyond `max_waiting` it refuses."""

    def __init__(self, *, max_pixels: int, max_waiting: int = 32) -> None:
        self._max_pixels = max_pixels
        self._max_waiting = max_waiting
        self._under_way = 0
        # Threads start with the first pictures.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")

    async def read(self, effect: ReadImages) -> DecodedRows:
        """Raise ApiError: OVERLOADED, INFERENCE_TIMEOUT."""
        if self._under_way >= self._max_waiting:
            message = "More images are being decoded than fit in here. Try again."
            raise ApiError(ErrorCode.OVERLOADED, message, retry_after_s=_RETRY_AFTER_S)
        deadline = time.monotonic() + effect.timeout_s
        work = self._threads.submit(
            read_images, effect.images, max_pixels=self._max_pixels, deadline=deadline
        )
        self._under_way += 1
        loop = asyncio.get_running_loop()
        # Counted until it is over, also where the caller left or waited too long.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish))
        try:
            return await asyncio.wait_for(
                asyncio.wrap_future(work), timeout=effect.timeout_s
            )
        except TimeoutError:
            raise refusals.too_late() from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _finish(self) -> None:
        self._under_way -= 1
