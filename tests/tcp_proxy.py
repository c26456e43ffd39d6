"""Run a TCP proxy that a test can cut, silence and mend again."""

import asyncio
import threading


class Proxy:
    """A proxy of one local port, in a thread of its own."""

    def __init__(self, target_port):
        self._target_port = target_port
        self._tasks = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    def __enter__(self):
        self._thread.start()
        self._run(self._mend())
        return self

    def __exit__(self, *error):
        self._run(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self):
        """Close every connection, and refuse new ones."""
        self._run(self._cut())

    def silence(self):
        """Accept connections and bytes, and forward nothing."""
        self._run(self._silence())

    def mend(self):
        """Forward everything, also what was held back."""
        self._run(self._mend())

    def _run(self, work):
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _mend(self):
        if self.port == 0 or not self._server.is_serving():
            self._passing = asyncio.Event()
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port
            )
            self.port = self._server.sockets[0].getsockname()[1]
        self._passing.set()

    async def _silence(self):
        self._passing.clear()

    async def _cut(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        target = None
        try:
            await self._passing.wait()
            target = await asyncio.open_connection("127.0.0.1", self._target_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, target[1]))
                group.create_task(self._pass_on(target[0], writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # If one side has gone, close the other too.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            if target is not None:
                target[1].close()

    async def _pass_on(self, reader, writer):
        while data := await reader.read(65536):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
