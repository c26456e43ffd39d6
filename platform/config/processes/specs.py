"""Describe the processes that `modelyard serve` starts on one machine."""

import os
import signal
import sys
from pathlib import Path

from django.conf import settings

from config.processes import readiness
from config.processes.supervisor import ProcessSpec, Supervisor
from inference.engine.devices import found
from inference.gateway.settings import SITE_THREADS, gateway_names
from inference.installation import modes

# Threads of the internal process. Gateways use at most half of them to read uploads.
_INTERNAL_THREADS = 16
_BEHIND_PREDICTIONS = 5
_BACKGROUND = 10
# Credentials that neither the engine nor the gateway gets.
CREDENTIALS = frozenset(
    f"{name}{suffix}"
    for name in (
        "DATABASE_URL",
        "CACHE_URL",
        "CELERY_BROKER_URL",
        "EMAIL_URL",
        "UPLOAD_STORAGE_OPTIONS",
        "SECRET_KEY",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        # Of the object stores that may hold artifacts and uploads.
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN",
        "AWS_SHARED_CREDENTIALS",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_CLIENT_SECRET",
        "GOOGLE_APPLICATION_CREDENTIALS",
        # libpq reads it by itself.
        "PGPASSWORD",
    )
    for suffix in ("", "_FILE")
)


def process_specs() -> tuple[ProcessSpec, ...]:
    """Return all processes in starting order, first those that answer predictions."""
    python = sys.executable
    environment = common_environment()
    host = ProcessSpec(
        "host",
        (
            python,
            "-m",
            "inference.host",
            "--devices",
            ",".join(_devices(settings.MODELYARD_DEVICES)),
        ),
        stop_phase=3,
        environment=environment,
        hidden=CREDENTIALS,
        renews_itself=True,
        renew_phase=2,
    )
    # Gateways share the public port; each stops and restarts independently.
    gateways = tuple(
        ProcessSpec(
            name,
            (python, "-m", "inference.gateway"),
            stop_phase=1,
            stop_timeout_s=30.0,
            environment=environment,
            hidden=CREDENTIALS,
            sign_of_work=f"{name}.*.sock",
            # Without another one, nobody would listen meanwhile.
            overlaps=settings.MODELYARD_GATEWAYS == 1,
            renew_phase=1,
        )
        for name in gateway_names(settings.MODELYARD_GATEWAYS)
    )
    return (
        host,
        *gateways,
        # Predictions wait for its leases, so it has threads that no page can use.
        ProcessSpec(
            "internal",
            _site_command(
                python,
                settings.HOME.internal_socket,
                workers=1,
                threads=_INTERNAL_THREADS,
            ),
            stop_phase=3,
            stop_timeout_s=15.0,
            environment=environment,
            sign_of_work=settings.HOME.internal_socket.name,
            overlaps=True,
        ),
        ProcessSpec(
            "site",
            _site_command(
                python,
                settings.HOME.site_socket,
                workers=settings.MODELYARD_SITE_WORKERS,
                threads=SITE_THREADS,
            ),
            stop_phase=3,
            nice=_BEHIND_PREDICTIONS,
            stop_timeout_s=15.0,
            environment=environment,
            sign_of_work=settings.HOME.site_socket.name,
            overlaps=True,
        ),
        ProcessSpec(
            "controller",
            (python, "-m", "config", "run_controller"),
            stop_phase=3,
            nice=_BEHIND_PREDICTIONS,
            environment=environment,
            # Without a plan for its engines, the host waits for the controller. Who may
            # not look into the home is told so later, in words.
            starts_late=os.path.exists(settings.HOME.host_plan),
            sign_of_work=settings.HOME.ledger_report.name,
        ),
        ProcessSpec(
            "worker",
            _celery(python, "worker"),
            stop_phase=2,
            nice=_BACKGROUND,
            environment=environment,
            starts_late=True,
        ),
        ProcessSpec(
            "beat",
            _celery(python, "beat", "--pidfile", ""),
            stop_phase=1,
            nice=_BACKGROUND,
            environment=environment,
            starts_late=True,
        ),
    )


def models_answer() -> bool:
    """Return whether what runs in the background may start.

    On few cores it would take half of the time of the engines, for which people wait.
    """
    return readiness.all_ready(timeout_s=0.2)


def supervisor(*, log_to_files: bool = True) -> Supervisor:
    """Return the supervisor of all processes, which obeys the signals to this one."""
    made = Supervisor(
        process_specs(),
        home=settings.HOME,
        log_to_files=log_to_files,
        # Prints the processes of the code that is installed by then.
        process_table=(sys.executable, "-m", "config", "serve", "--print-processes"),
        started=models_answer,
    )
    signal.signal(signal.SIGHUP, lambda *_: made.request_renewal())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: made.request_stop())
    return made


def _devices(names: list[str]) -> tuple[str, ...]:
    """Replace `auto` by the devices of this machine."""
    known: dict[str, None] = {}
    for name in names:
        known |= dict.fromkeys(found.devices() if name == "auto" else (name,))
    return tuple(known)


def _site_command(
    python: str, socket: Path, *, workers: int, threads: int
) -> tuple[str, ...]:
    return (
        python,
        "-m",
        "gunicorn",
        "config.wsgi:application",
        "--config",
        "python:config.processes.gunicorn_sockets",
        "--bind",
        f"unix:{socket}",
        "--umask",
        "0o007" if modes.is_shared(settings.HOME.root) else "0o077",
        "--worker-class",
        "gthread",
        "--workers",
        str(workers),
        "--threads",
        str(threads),
        "--graceful-timeout",
        "10",
        "--keep-alive",
        "30",
        # The gateway limits headers; gunicorn's own errors would be in HTML.
        "--limit-request-line",
        "0",
        "--limit-request-field_size",
        # Here 0 means 8190.
        "65536",
        "--limit-request-fields",
        "32768",
        # The gateway is the only client and sets forwarded headers itself. No header
        # may set SCRIPT_NAME or PATH_INFO.
        "--forwarded-allow-ips",
        "*",
        "--forwarder-headers",
        "",
        "--worker-tmp-dir",
        str(settings.HOME.run),
        "--no-control-socket",
        "--logger-class",
        "config.processes.gunicorn_log.GunicornLog",
        "--log-level",
        "warning",
    )


def _celery(python: str, *arguments: str) -> tuple[str, ...]:
    kind, *rest = arguments
    return (
        python,
        "-m",
        "celery",
        # Without its banner: each line of our logs is a JSON object.
        "--quiet",
        "-A",
        "config",
        kind,
        "--loglevel",
        "WARNING",
        *rest,
    )


def common_environment() -> dict[str, str]:
    """Return the environment variables on which all processes must agree."""
    return {
        "MODELYARD_HOME": str(settings.HOME.root),
        "MODELYARD_HOST": settings.MODELYARD_HOST,
        "MODELYARD_PORT": str(settings.MODELYARD_PORT),
        "MODELYARD_OPERATOR_HOST": settings.MODELYARD_OPERATOR_HOST,
        "MODELYARD_OPERATOR_PORT": str(settings.MODELYARD_OPERATOR_PORT),
        "MODELYARD_GRPC_PORT": str(settings.MODELYARD_GRPC_PORT),
        "MODELYARD_GATEWAYS": str(settings.MODELYARD_GATEWAYS),
        "MODELYARD_SITE_WORKERS": str(settings.MODELYARD_SITE_WORKERS),
        "LOG_TO": settings.LOG_TO,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONUNBUFFERED": "1",
    }
