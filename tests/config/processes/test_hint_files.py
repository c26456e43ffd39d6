"""The broker in a folder: messages are whole, even if their writer was killed."""

import os
import random
import threading

import pytest
from celery import Celery
from kombu.exceptions import KombuError

QUEUE = "celery"


def connect(folder):
    app = Celery("hints", broker="filesystem://", set_as_current=False)
    app.conf.broker_transport = "config.processes.hint_files:Transport"
    app.conf.broker_transport_options = {"folder": str(folder)}
    return app


@pytest.fixture
def app(tmp_path):
    return connect(tmp_path)


def send(app, *numbers):
    for number in numbers:
        app.send_task("some.task", args=[number])


def received(app):
    """Take all waiting messages, as a worker does."""
    found = []
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.amqp.queues[QUEUE])
        while True:
            try:
                message = queue.get(block=False)
            except queue.Empty:
                return found
            found.append(message.payload[0][0])
            message.ack()


def test_messages_arrive_in_order_and_once(app, tmp_path):
    send(app, 1, 2, 3)

    assert received(connect(tmp_path)) == [1, 2, 3]
    assert received(app) == []
    assert list(tmp_path.iterdir()) == []


def test_a_torn_message_is_dropped_and_the_next_one_arrives(app, tmp_path):
    chance = random.Random(20261130)
    send(app, *range(40))
    kept = []
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        whole = path.read_bytes()
        if number % 4:
            length = chance.randrange(len(whole)) if number % 4 > 1 else 0
            path.write_bytes(whole[:length])
        else:
            kept.append(number)

    assert received(app) == kept
    assert list(tmp_path.iterdir()) == []


def test_a_message_is_seen_only_once_it_is_whole(app, tmp_path, monkeypatch):
    """A writer that is killed between any two of its steps leaves no message."""

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.rename", die)
    with pytest.raises(KeyboardInterrupt):
        send(app, 1)
    monkeypatch.undo()
    assert received(app) == []

    send(app, 2)

    assert received(app) == [2]


def test_what_a_killed_writer_began_is_deleted_later(app, tmp_path):
    begun = tmp_path / "00000000001760000000-7-0.partial"
    begun.write_bytes(b'{"body"')
    os.utime(begun, (0, 0))

    assert received(app) == []
    assert not begun.exists()


def test_several_readers_share_the_messages(app, tmp_path):
    send(app, *range(60))
    found, threads = [], []
    for _ in range(4):
        other = connect(tmp_path)
        threads.append(
            threading.Thread(target=lambda app=other: found.extend(received(app)))
        )

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == list(range(60))


def test_a_folder_that_is_gone_is_an_error_of_the_broker(tmp_path):
    app = connect(tmp_path / "gone")

    with pytest.raises(KombuError):
        app.send_task("some.task", retry=False)
    assert received(app) == []
