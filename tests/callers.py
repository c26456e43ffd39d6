"""Call again and again from threads, and keep what goes wrong."""

import threading
import time

import httpx


class Callers:
    """Call until the block ends; `failures` has unexpected answers, and errors.

    Each of `asks` takes a client and returns its answer. Two threads call it: one keeps
    its connection, and the other opens one for each call. `socket` is the path of a
    Unix socket.
    """

    def __init__(self, *asks, expected=200, pause_s=0.02, timeout_s=60, socket=None):
        self._expected = expected
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._socket = socket
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(ask, kept))
            for ask in asks
            for kept in (True, False)
        ]
        self.failures = []
        self.seconds = []

    @property
    def calls(self):
        return len(self.seconds)

    def _call(self, ask, kept):
        client = self._open()
        while not self._over.wait(self._pause_s):
            began = time.monotonic()
            try:
                answer = ask(client)
                if answer.status_code != self._expected:
                    self.failures.append(answer.text)
            except httpx.TransportError as error:
                self.failures.append(repr(error))
            self.seconds.append(time.monotonic() - began)
            if not kept:
                client.close()
                client = self._open()
        client.close()

    def _open(self):
        transport = httpx.HTTPTransport(verify=False, uds=self._socket)
        return httpx.Client(transport=transport, timeout=self._timeout_s)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
