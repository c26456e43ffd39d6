"""Check the conditions for starting processes, and explain what is wrong."""

import contextlib
import fcntl
import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import django.db
import structlog
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from accounts.admission.limit_words import counted
from config.processes import schema, secret_key
from config.processes.specs import common_environment
from inference.controller import ownership
from inference.engine import settings as engine_settings
from inference.gateway import settings as gateway_settings
from inference.gateway.grpc.certificates import Certificates
from inference.installation import modes
from inference.installation.home import Home
from inference.installation.preparing import HomeUnusable, prepare

log = structlog.get_logger(__name__)

_ANY_NUMBER = ("controller", "worker")


class CannotStart(Exception):
    """Nothing was started; the text tells the operator why."""


class Port(NamedTuple):
    host: str
    number: int
    # The setting that changes the number.
    setting: str


def check() -> None:
    """Raise CannotStart unless settings, the home folder and the ports can be used."""
    _check_common_settings()
    hold_home(settings.HOME)
    check_secret_key()
    check_ports(ports())


def check_alone(name: str, *, uses_database: bool) -> None:
    """Raise CannotStart unless this process may become the one of that name."""
    _check_common_settings()
    join_home(settings.HOME, name)
    if uses_database:
        check_secret_key()
        share_secret_key(settings.HOME, secret_key.in_use())
        # Only the controller may note where the home is: in containers, the others
        # may have other names of hosts.
        check_database(claims=name == "controller")


def _check_common_settings() -> None:
    if settings.LOG_TO not in ("files", "stdout"):
        raise CannotStart(f"LOG_TO is {settings.LOG_TO!r}; it may be files or stdout.")
    check_settings(environment())


def environment() -> dict[str, str]:
    """Return the environment of the processes that `serve` starts."""
    return {**os.environ, **common_environment(), "MODELYARD_PROCESS": ""}


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


def taken(ports: Sequence[Port]) -> list[Port]:
    """Return those that cannot be listened on, each looked at alone."""
    found = []
    for port in ports:
        try:
            check_ports([port])
        except CannotStart:
            found.append(port)
    return found


def hold_home(home: Home) -> int:
    """Lock the home for this process, or raise CannotStart naming the holder.

    Returns the lock's file descriptor; the lock ends with the process.
    """
    path = home.root / "supervisor.lock"
    descriptor = _open_lock(home, path)
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


def join_home(home: Home, name: str) -> list[int]:
    """Let this process, and what it becomes, be the one of this name in the home.

    Raises CannotStart if there is one, or if `serve` runs. The locks end with the
    process. A second site would take the first one's socket, and a second beat would
    send everything twice; any number of workers and controllers may run.
    """
    whole = _open_lock(home, home.root / "supervisor.lock")
    try:
        fcntl.flock(whole, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(whole)
        raise CannotStart(
            f"`modelyard serve` runs on {home.root} and has a {name} already."
        ) from error
    held = [whole]
    if name not in _ANY_NUMBER:
        held.append(_open_lock(home, home.run / f"{name}.lock"))
        try:
            fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            for descriptor in held:
                os.close(descriptor)
            raise CannotStart(
                f"Another {name} runs on {home.root}, and there may be only one. Stop "
                "that one first."
            ) from error
    for descriptor in held:
        os.set_inheritable(descriptor, True)
    return held


def check_secret_key() -> None:
    """Raise CannotStart if there is no key to sign sessions and links with."""
    if secret_key.in_use():
        return
    path = settings.HOME.secret_key
    if not secret_key.is_lost(settings.HOME):
        raise CannotStart(f"{path} cannot be read, and SECRET_KEY is not set.")
    raise CannotStart(
        f"The secret key is lost: this home has served before, and {path} is not "
        "there. Put it back from an encrypted backup, or set SECRET_KEY as before. To "
        "do without it (everybody is signed out, and links that were sent end): "
        "modelyard new_secret_key"
    )


def share_secret_key(home: Home, key: str) -> int:
    """Hold the secret key that all running processes of a home have, or raise.

    It may change while none of them runs.
    """
    path = home.run / "secret_key.digest"
    digest = hashlib.sha256(b"modelyard secret key " + key.encode()).hexdigest()
    descriptor = _open_lock(home, path)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, digest.encode(), 0)
    except BlockingIOError:
        pass
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.pread(descriptor, 64, 0).decode() != digest:
        os.close(descriptor)
        raise CannotStart(
            "SECRET_KEY is not the one that other processes of this home run with, so "
            "people's sessions and links would not work. Give all processes the same "
            "SECRET_KEY or SECRET_KEY_FILE; to change it, stop all of them first."
        )
    return descriptor


def _open_lock(home: Home, path: Path) -> int:
    try:
        prepare(home, os.environ)
        mode = modes.of_files(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    except HomeUnusable as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(f"{path} cannot be written ({error.strerror}).") from error


def check_database(*, claims: bool = True) -> None:
    """Raise CannotStart if database and code differ, or if another home has it.

    A database that does not answer is no reason: predictions use the last snapshot.
    """
    try:
        executor = MigrationExecutor(connection)
        lacking = executor.migration_plan(executor.loader.graph.leaf_nodes())
        newer = schema.unknown(executor.loader.applied_migrations)
        if lacking or newer:
            pass
        elif claims:
            ownership.claim(settings.HOME, now=timezone.now())
        else:
            ownership.check(settings.HOME)
    except ownership.OtherHome as error:
        raise CannotStart(str(error)) from error
    except django.db.Error as error:
        log.warning("database_unavailable", reason=error)
        return
    if newer:
        raise CannotStart(
            f"The database is of a newer version of Modelyard: this one does not know "
            f"{newer[0]}. Install that version again, or go back: docs/upgrade.md"
        )
    if lacking:
        first, _ = lacking[0]
        raise CannotStart(
            f"The database lacks {counted(len(lacking), 'migrations')}, first"
            f" {first.app_label}.{first.name}. Run: modelyard migrate"
        )
