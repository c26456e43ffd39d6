"""What the gateway reads from the environment, once, at its start."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from inference.home import Home
from inference.prediction import DEFAULT_TIMEOUT_S, MAX_BODY_BYTES

Value = TypeVar("Value", int, float)

_DEFAULT_PORT = 8000


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    home: Home
    # Address of the public port.
    host: str = "127.0.0.1"
    # 0: any free port.
    port: int = _DEFAULT_PORT
    # Metrics and readiness detail; loopback only, whatever `host` is.
    operator_host: str = "127.0.0.1"
    operator_port: int = _DEFAULT_PORT + 1
    # JSON bodies of predictions.
    max_body_bytes: int = MAX_BODY_BYTES
    # Bodies relayed to the site: job files.
    max_upload_bytes: int = 1024**3
    # Longest and default deadline of a prediction.
    max_timeout_s: float = DEFAULT_TIMEOUT_S
    # A client may take this long for a request's headers, and for a prediction's body.
    header_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    # An upload must make progress this often.
    upload_idle_timeout_s: float = 30.0
    # The site must begin its answer within this time.
    site_timeout_s: float = 120.0
    # Unread usage events on disk; predictions stop beyond it.
    spool_max_bytes: int = 4 * 1024**3
    # Requests in flight finish within this time after SIGTERM.
    drain_timeout_s: float = 25.0
    log_level: str = "INFO"


def from_environment(environment: Mapping[str, str]) -> GatewaySettings:
    """Read `MODELYARD_…`; raises ValueError with a sentence on bad values."""

    def number(name: str, convert: Callable[[str], Value], default: Value) -> Value:
        text = environment.get(name, "")
        try:
            value = convert(text) if text else default
        except ValueError:
            value = convert("-1")
        if value < 0:
            raise ValueError(f"{name} must be a number, 0 or greater, not {text!r}.")
        return value

    port = number("MODELYARD_PORT", int, _DEFAULT_PORT)
    root = Path(environment.get("MODELYARD_HOME") or "var").resolve()
    return GatewaySettings(
        home=Home(root),
        host=environment.get("MODELYARD_HOST") or "127.0.0.1",
        port=port,
        operator_host=environment.get("MODELYARD_OPERATOR_HOST") or "127.0.0.1",
        operator_port=number(
            "MODELYARD_OPERATOR_PORT", int, port + 1 if port else port
        ),
        max_body_bytes=number("MODELYARD_MAX_BODY_BYTES", int, MAX_BODY_BYTES),
        max_upload_bytes=number("MODELYARD_MAX_UPLOAD_BYTES", int, 1024**3),
        max_timeout_s=number("MODELYARD_MAX_TIMEOUT_S", float, DEFAULT_TIMEOUT_S),
        header_timeout_s=number("MODELYARD_HEADER_TIMEOUT_S", float, 10.0),
        body_timeout_s=number("MODELYARD_BODY_TIMEOUT_S", float, 20.0),
        spool_max_bytes=number("MODELYARD_SPOOL_MAX_BYTES", int, 4 * 1024**3),
        log_level=environment.get("LOG_LEVEL") or "INFO",
    )
