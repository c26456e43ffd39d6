"""Buffer bodies between a fast and a slow side: in memory at first, then in a file."""

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.bounds import Bytes
from inference.gateway.http1.asgi import ClientLeft
from inference.gateway.owners import Owner

logger = structlog.get_logger(__name__)

# What one buffer may hold in memory, and all of a gateway.
MEMORY_BYTES = 256 * 1024
_ALL_MEMORY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 128 * 1024
_DISK_THREADS = 2


class Buffers:
    """What all buffers of a gateway share: memory, a folder, the count of bytes."""

    def __init__(self, folder: Path, held: Bytes) -> None:
        self.held = held
        self.memory_bytes = 0
        self._folder = folder
        # A slow disk must not block the event loop.
        self._threads = ThreadPoolExecutor(_DISK_THREADS, "buffers")

    def open(self, owner: Owner, *, answers: "Buffer | None" = None) -> "Buffer":
        """Open a buffer; an answer counts together with the body that it `answers`."""
        return Buffer(self, owner, answers)

    def new_file(self) -> int:
        """Open a file without a name, which cannot outlive the process."""
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
            return os.dup(file.fileno())

    def on_disk(
        self, work: Callable[..., Any], *arguments: Any
    ) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, work, *arguments)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Buffer:
    """One body: one task puts bytes in, another gets them."""

    def __init__(
        self, buffers: Buffers, owner: Owner, answers: "Buffer | None" = None
    ) -> None:
        self._buffers = buffers
        self._answers = answers
        self._owner = owner
        # Bytes counted against the owner's share, in advance or as they come.
        self._counted = 0
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._file: int | None = None
        self._file_bytes = self._written = self._read = 0
        self._on_disk = 0
        self._ended = self._closed = False
        self._failure: Exception | None = None
        self._arrived = asyncio.Event()
        # All bytes put so far.
        self.size = 0

    def reserve(self, size: int) -> None:
        """Count at least `size` bytes in advance; raises ApiError OVERLOADED."""
        more = size - self._counted
        if more > 0:
            already = self._counted
            if self._answers is not None:
                already += self._answers._counted
            self._buffers.held.take(self._owner, more, already=already)
            self._counted += more

    async def put(self, data: bytes) -> None:
        """Take more bytes; raises ApiError OVERLOADED if there is no room."""
        if self._closed:
            raise ClientLeft
        in_memory = (
            self._written == self._read
            and not self._on_disk
            and self._memory_bytes + len(data) <= MEMORY_BYTES
            and self._buffers.memory_bytes + len(data) <= _ALL_MEMORY_BYTES
        )
        if in_memory:
            self.reserve(self._memory_bytes + len(data) + self._file_bytes)
            self._memory.append(data)
            self._hold_memory(len(data))
        else:
            # Overwrite what was read, so a fast reader needs little disk.
            if self._written == self._read and not self._on_disk:
                self._written = self._read = 0
            end = self._written + len(data)
            self._file_bytes = max(end, self._file_bytes)
            self.reserve(self._memory_bytes + self._file_bytes)
            await self._disk(self._write, data, self._written)
            self._written = end
        self.size += len(data)
        self._arrived.set()

    def end(self, failure: Exception | None = None) -> None:
        """Mark the end; after the last bytes, `get` raises `failure` if given."""
        self._ended = True
        self._failure = failure
        self._arrived.set()

    async def get(self) -> bytes:
        """Return the next bytes, b"" at the end; raises the `failure` of `end`."""
        while True:
            if self._memory:
                held = self._memory.popleft()
                self._hold_memory(-len(held))
                return held
            if self._read < self._written:
                size = min(self._written - self._read, _READ_BYTES)
                data: bytes = await self._disk(self._read_file, size, self._read)
                self._read += len(data)
                return data
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.get():
            yield data

    def close(self) -> None:
        """Free memory, file and share, even if not all was read."""
        if self._closed:
            return
        self._closed = True
        self._hold_memory(-self._memory_bytes)
        self._memory.clear()
        self._buffers.held.give_back(self._owner, self._counted)
        self._counted = 0
        if not self._on_disk:
            self._close_file()

    def _hold_memory(self, more: int) -> None:
        self._memory_bytes += more
        self._buffers.memory_bytes += more

    async def _disk(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run in a thread; raises ApiError OVERLOADED if the disk fails."""
        self._on_disk += 1
        done = self._buffers.on_disk(work, *arguments)
        done.add_done_callback(self._left_disk)
        try:
            # If this task is cancelled, the thread goes on and needs its file.
            return await asyncio.shield(done)
        except OSError as error:
            logger.error("buffer_failed", outage="buffers", reason=error)
            message = "What is on its way to or from the site cannot be kept."
            raise ApiError(ErrorCode.OVERLOADED, message, retry_after_s=5.0) from error

    def _left_disk(self, done: "asyncio.Future[Any]") -> None:
        self._on_disk -= 1
        if not done.cancelled():
            # Fetch it, or asyncio logs it as never retrieved.
            done.exception()
        if self._closed and not self._on_disk:
            self._close_file()

    def _write(self, data: bytes, start: int) -> None:
        if self._file is None:
            self._file = self._buffers.new_file()
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, start)
            start += written
            view = view[written:]

    def _read_file(self, size: int, start: int) -> bytes:
        assert self._file is not None, "it was written to"
        return os.pread(self._file, size, start)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
