"""Test how often the blocking client sends; `test_client_contract` tests answers."""

import contextlib
import socket
import struct
import threading

import numpy as np
import pytest

from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.wire import frames
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import EngineStatus, GetStatus, VersionKey
from inference.engine.wire.tensors import Tensor

CALL = PredictionCall(
    VersionKey("m", 1), (Tensor("input", np.zeros((1, 2), np.float32)),), 30.0
)


class Engine:
    """Answer questions for the status, and end the connection at any other request."""

    # What it sends to those who ask for its status.
    answer = frames.encode(EngineStatus(0, "cpu", 1, 1, (), {}))

    def __init__(self, path):
        self.requests = []
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                decoder = frames.FrameDecoder()
                while data := connection.recv(65536):
                    if data == b"stop":
                        return
                    for frame in decoder.feed(data):
                        self.requests.append(frames.decode_request(frame.header))
                    if not isinstance(self.requests[-1], GetStatus):
                        break
                    connection.sendall(self.answer)

    def stop(self, path):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"stop")
            self._thread.join()
        self._listener.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "engine.sock"


@pytest.fixture
def engine(path):
    engine = Engine(path)
    yield engine
    engine.stop(path)


@pytest.fixture
def client(path, engine):
    client = BlockingEngineClient(path)
    yield client
    client.close()


def test_a_call_on_which_the_engine_ends_is_sent_once(client, engine):
    client.status()

    with pytest.raises(EngineError) as caught:
        client.predict(CALL)

    assert caught.value.code is EngineErrorCode.DIED
    assert [type(one).__name__ for one in engine.requests] == ["GetStatus", "Predict"]
    assert engine.connections == 1


def test_a_kept_socket_of_an_engine_that_has_ended_is_not_used(client, engine):
    client.status()
    [kept] = client._idle
    kept.shutdown(socket.SHUT_RDWR)

    client.status()

    assert engine.connections == 2


def test_a_kept_socket_is_used_again_without_a_wait(client, engine):
    for _ in range(3):
        client.status()

    assert engine.connections == 1


def test_an_engine_of_another_format_is_away_and_the_error_says_why(client, engine):
    engine.answer = struct.pack("<IBI", 10, 2, 5)

    with pytest.raises(EngineError) as caught:
        client.status()

    assert caught.value.code is EngineErrorCode.CONNECTION_LOST
    assert "its messages have format 2, and this code reads 1" in str(caught.value)
