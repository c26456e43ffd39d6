"""Check the conditions for starting processes, and explain what is wrong."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import django.db
import structlog
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from config.processes.specs import common_environment
from inference.controller import ownership
from inference.engine import settings as engine_settings
from inference.gateway import settings as gateway_settings
from inference.gateway.grpc.certificates import Certificates
from inference.installation.home import Home

log = structlog.get_logger(__name__)


class CannotStart(Exception):
    """Nothing was started; the text tells the operator why."""


class Port(NamedTuple):
    host: str
    number: int
    # The setting that changes the number.
    setting: str


def check() -> None:
    """Raise CannotStart unless settings, the home folder and the ports can be used."""
    if settings.LOG_TO not in ("files", "stdout"):
        raise CannotStart(f"LOG_TO is {settings.LOG_TO!r}; it may be files or stdout.")
    environment = {**os.environ, **common_environment(), "MODELYARD_PROCESS": ""}
    check_settings(environment)
    hold_home(settings.HOME)
    check_ports(ports())


def check_settings(environment: Mapping[str, str]) -> None:
    """Raise CannotStart for settings with which gateways or engines cannot start.

    Without this check they would end again and again, with the reason only in a log.
    """
    try:
        gateway = gateway_settings.from_environment(environment)
        engine_settings.from_environment(environment)
    except ValueError as error:
        raise CannotStart(str(error)) from error
    if gateway.grpc_certificate is None or gateway.grpc_key is None:
        return
    try:
        Certificates(gateway.grpc_certificate, gateway.grpc_key, gateway.grpc_client_ca)
    except OSError as error:
        raise CannotStart(
            "MODELYARD_GRPC_CERTIFICATE_FILE, MODELYARD_GRPC_KEY_FILE and "
            "MODELYARD_GRPC_CLIENT_CA_FILE must be PEM files that belong together and "
            f"can be read ({error})."
        ) from error


def ports() -> list[Port]:
    public = settings.MODELYARD_HOST
    found = [
        Port(public, settings.MODELYARD_PORT, "MODELYARD_PORT"),
        Port(
            settings.MODELYARD_OPERATOR_HOST,
            settings.MODELYARD_OPERATOR_PORT,
            "MODELYARD_OPERATOR_PORT",
        ),
        Port(public, settings.MODELYARD_GRPC_PORT, "MODELYARD_GRPC_PORT"),
    ]
    # 0 means no gRPC, or any port.
    return [port for port in found if port.number]


def check_ports(ports: Sequence[Port]) -> None:
    """Raise CannotStart unless all ports can be listened on at the same time."""
    with contextlib.ExitStack() as held:
        for host, number, setting in ports:
            if not 0 < number < 65_536:
                raise CannotStart(f"{setting} is {number}; ports end at 65535.")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
                # Without listening, two sockets could bind the same port.
                probe.listen()
            except OSError as error:
                raise CannotStart(
                    f"Port {number} on {host} cannot be used ({error.strerror}). Stop "
                    f"the program that has it, or choose another port: "
                    f"{setting}={number + 100}"
                ) from error


def hold_home(home: Home) -> int:
    """Lock the home for this process, or raise CannotStart naming the holder.

    Returns the lock's file descriptor; the lock ends with the process.
    """
    path = home.root / "supervisor.lock"
    try:
        home.prepare()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"MODELYARD_HOME={home.root} cannot be written ({error.strerror}). It must "
            "belong to the user that runs Modelyard."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = path.read_text().strip() or "unknown"
        os.close(descriptor)
        raise CannotStart(
            f"Modelyard is already running on {home.root} (process {holder}). Stop "
            "that one first, or use another folder: MODELYARD_HOME=./var2"
        ) from error
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def check_database() -> None:
    """Raise CannotStart if the database lacks migrations or belongs to another home.

    A database that does not answer is no reason: predictions use the last snapshot.
    """
    try:
        executor = MigrationExecutor(connection)
        lacking = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if not lacking:
            ownership.claim(settings.HOME, now=timezone.now())
    except ownership.OtherHome as error:
        raise CannotStart(str(error)) from error
    except django.db.Error as error:
        log.warning("database_unavailable", reason=str(error).strip())
        return
    if lacking:
        first, _ = lacking[0]
        raise CannotStart(
            f"The database lacks {len(lacking)} migrations, the first of them"
            f" {first.app_label}.{first.name}. Run: manage.py migrate"
        )
