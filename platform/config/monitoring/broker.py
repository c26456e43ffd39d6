"""Ask the broker how many messages wait for a worker."""

from typing import Any

from celery import current_app
from kombu.exceptions import ChannelError


def waiting_messages(*, timeout_s: float) -> int | None:
    """Return how many messages wait; None if no worker has made the queue yet.

    Raises what the transport raises if the broker is away or does not answer.
    """
    options: dict[str, Any] = {
        **current_app.conf.broker_transport_options,
        "max_retries": 0,
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "read_timeout": timeout_s,
        "write_timeout": timeout_s,
    }
    with current_app.connection_for_read(
        connect_timeout=timeout_s, transport_options=options
    ) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=timeout_s)
        queue = current_app.conf.task_default_queue
        try:
            found = connection.default_channel.queue_declare(queue, passive=True)
        except (ChannelError, *connection.channel_errors):
            return None
        return int(found.message_count)
