"""Run a command once PostgreSQL, Redis and RabbitMQ answer, or name those that do not.

Usage: python tests/services.py COMMAND [ARGUMENT…]
"""

import os
import sys
from collections.abc import Callable

_HOW = {
    "DATABASE_URL": (
        "postgres://postgres@127.0.0.1:5432/test",
        "PostgreSQL 14 or newer, as a user who may create databases",
    ),
    "CACHE_URL": ("redis://127.0.0.1:6379/0", "Redis 6 or newer"),
    "CELERY_BROKER_URL": ("amqp://guest:guest@127.0.0.1:5672//", "RabbitMQ 3.8"),
}


def _ask_postgresql(url: str) -> None:
    import psycopg

    psycopg.connect(url.replace("postgres://", "postgresql://", 1)).close()


def _ask_redis(url: str) -> None:
    import redis

    redis.Redis.from_url(url).ping()


def _ask_broker(url: str) -> None:
    import kombu

    with kombu.Connection(url, connect_timeout=5) as connection:
        connection.ensure_connection(max_retries=1)


def main() -> None:
    ask: dict[str, Callable[[str], None]] = {
        "DATABASE_URL": _ask_postgresql,
        "CACHE_URL": _ask_redis,
        "CELERY_BROKER_URL": _ask_broker,
    }
    missing = []
    for name, (example, service) in _HOW.items():
        url = os.environ.get(name)
        if not url:
            missing.append(f"{name} is not set. It names {service}, like {example}")
            continue
        try:
            ask[name](url)
        except Exception as error:
            missing.append(f"{name}: {service} does not answer: {error}")
    if missing:
        missing.append("docs/deployment.md says how to start them.")
        sys.exit("\n".join(missing))
    os.environ["MODELYARD_TEST_SERVICES"] = "1"
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
