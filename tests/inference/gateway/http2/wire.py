"""A connection without a network, which collects what the server writes."""

from hyperframe import frame as hyper

from inference.gateway.http2.connection import Http2Connection
from tests.inference.gateway.http2.peer import PREFACE


class Wire:
    """A transport that takes all data, or asks to pause beyond `most_bytes`."""

    def __init__(self, most_bytes=None):
        self.connection = None
        self._most_bytes = most_bytes
        self.closed = False
        self.reading = True
        self._sent = b""

    @property
    def frames(self):
        """Return what was sent, as frames of hyperframe."""
        found, data = [], memoryview(self._sent)
        while data:
            frame, length = hyper.Frame.parse_frame_header(data[:9])
            frame.parse_body(data[9 : 9 + length])
            found.append(frame)
            data = data[9 + length :]
        return found

    def of(self, kind):
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def get_extra_info(self, name):
        return ("127.0.0.1", 1) if name == "peername" else None

    @property
    def sent_bytes(self):
        return len(self._sent)

    def write(self, data):
        assert data
        self._sent += data
        if self._most_bytes is not None and len(self._sent) > self._most_bytes:
            self.connection.pause_writing()

    def be_read(self):
        """Let the client read all, so that there is room for as much again."""
        self._most_bytes += len(self._sent)
        self.connection.resume_writing()

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.closed

    def can_write_eof(self):
        return False

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


def connect(server, **options):
    """Return a connection of a server that has had its greeting, and its wire."""
    connection, wire = Http2Connection(server), Wire(**options)
    wire.connection = connection
    connection.connection_made(wire)
    connection.data_received(PREFACE + hyper.SettingsFrame(0).serialize())
    return connection, wire
