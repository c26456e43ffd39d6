"""Read the gateway's settings from the environment, once at its start."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from accounts.admission.networks import normalised
from inference.codecs.images import MAX_PIXELS
from inference.dialects.open_inference.over_http import DEFAULT_MAX_BINARY_BODY_BYTES
from inference.gateway.relay.buffers import MEMORY_BYTES
from inference.gateway.relay.relay import MIN_BYTES_PER_S
from inference.installation.home import Home
from inference.installation.log_lines import logs
from inference.prediction import cache
from inference.prediction.plan import DEFAULT_TIMEOUT_S, MAX_BODY_BYTES
from inference.prediction.streamed_plan import DEFAULT_MAX_STREAM_S, DEFAULT_MAX_STREAMS

Value = TypeVar("Value", int, float)

_DEFAULT_PORT = 8000
# Threads of one process of the site.
SITE_THREADS = 8
_DEFAULT_MAX_UPLOAD_BYTES = 1024**3
# The default is larger if two of the largest bodies for each gateway need more.
_DEFAULT_MAX_RELAYED_BYTES = 8 * 1024**3


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    home: Home
    # Name of this process among the gateways of its machine.
    name: str = "gateway"
    # How many of them share the ports: `gateway`, `gateway-2` and so on.
    gateways: int = 1
    # Address of the public port.
    host: str = "127.0.0.1"
    # The URL of this installation for callers; errors link to its docs.
    public_url: str = ""
    # 0 takes any free port.
    port: int = _DEFAULT_PORT
    # Address of the operators' port: loopback by default, whatever `host` is.
    operator_host: str = "127.0.0.1"
    operator_port: int = _DEFAULT_PORT + 1
    # 0 means no gRPC.
    grpc_port: int = 0
    # PEM files. Without a certificate and its key, gRPC is not encrypted. With a client
    # CA, clients must show a certificate too.
    grpc_certificate: Path | None = None
    grpc_key: Path | None = None
    grpc_client_ca: Path | None = None
    # Proxies whose X-Forwarded headers are believed.
    trusted_proxies: tuple[str, ...] = ()
    # More clients at once are turned away.
    max_connections: int = 10_000
    # Largest JSON body of a prediction.
    max_body_bytes: int = MAX_BODY_BYTES
    # An image of more pixels is refused after reading its header.
    max_image_pixels: int = MAX_PIXELS
    # Largest body or message with raw tensors.
    max_binary_body_bytes: int = DEFAULT_MAX_BINARY_BODY_BYTES
    # Largest body relayed to the site, such as a file of a job.
    max_upload_bytes: int = _DEFAULT_MAX_UPLOAD_BYTES
    # Bytes that wait between clients and the site, in all gateways together.
    max_relayed_bytes: int = _DEFAULT_MAX_RELAYED_BYTES
    # Processes of the site.
    site_workers: int = 1
    # The longest deadline of a prediction, which is also the default.
    max_timeout_s: float = DEFAULT_TIMEOUT_S
    # Streams at once, and how long each may last.
    max_streams: int = DEFAULT_MAX_STREAMS
    max_stream_s: float = DEFAULT_MAX_STREAM_S
    # Predictions that are kept for routes with a cache.
    cache_max_entries: int = cache.MAX_ENTRIES
    cache_max_bytes: int = cache.MAX_BYTES
    # A client may take this long for a request's headers, and for a prediction's body.
    header_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    # A body for the site must make progress this often, and at this rate on average.
    upload_idle_timeout_s: float = 30.0
    upload_min_bytes_per_s: float = MIN_BYTES_PER_S
    # The site must begin its answer within this time, or the second for a long body.
    site_timeout_s: float = 10.0
    site_upload_timeout_s: float = 120.0
    # How much of a quota may be spent beyond leases while the site is away.
    overdraft_percent: float = 5.0
    # Predictions stop when usage events on disk that are not yet ingested exceed this.
    spool_max_bytes: int = 4 * 1024**3
    # Requests in flight finish within this time after SIGTERM.
    drain_timeout_s: float = 25.0
    log_level: str = "INFO"
    # The share of calls that are logged; with 0 not even errors are.
    log_calls: float = 0.0


def files_needed(connections: int) -> int:
    """Return how many files a gateway opens: each client may need a socket and a file.

    Others are sockets of engines, spool segments and libraries.
    """
    return 2 * connections + 256


def gateway_count(text: str) -> int:
    """Read MODELYARD_GATEWAYS, a number or `auto`; raises ValueError.

    `auto` means one gateway for every two processors.
    """
    if text == "auto":
        return max(1, len(os.sched_getaffinity(0)) // 2)
    return int(text)


def gateway_names(count: int) -> tuple[str, ...]:
    """Return the names of the gateways of one machine."""
    return ("gateway", *(f"gateway-{number}" for number in range(2, count + 1)))


def _share_of_calls(text: str) -> float:
    """Read LOG_CALLS; raises ValueError."""
    if text in ("", "off"):
        return 0.0
    try:
        share = 1.0 if text == "all" else float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError(
            f"LOG_CALLS is {text!r}: write off, all, or a share of calls such as 0.01."
        )
    return share


def from_environment(environment: Mapping[str, str]) -> GatewaySettings:
    """Read all `MODELYARD_…` variables; raises ValueError, whose text is for people."""

    def number(name: str, convert: Callable[[str], Value], default: Value) -> Value:
        text = environment.get(name, "")
        try:
            value = convert(text) if text else default
        except ValueError:
            value = convert("-1")
        if value < 0:
            raise ValueError(f"{name} must be a number, 0 or greater, not {text!r}.")
        return value

    def file(name: str) -> Path | None:
        text = environment.get(name, "")
        if text and not Path(text).is_file():
            raise ValueError(f"{name} names no file: {text!r}.")
        return Path(text) if text else None

    certificate = file("MODELYARD_GRPC_CERTIFICATE_FILE")
    key = file("MODELYARD_GRPC_KEY_FILE")
    client_ca = file("MODELYARD_GRPC_CLIENT_CA_FILE")
    if (certificate is None) != (key is None) or (client_ca and certificate is None):
        raise ValueError(
            "Encrypted gRPC needs both MODELYARD_GRPC_CERTIFICATE_FILE and "
            "MODELYARD_GRPC_KEY_FILE."
        )

    def networks(name: str) -> tuple[str, ...]:
        given = environment.get(name, "").split(",")
        try:
            return tuple(normalised(text) for text in given if text.strip())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    gateways = max(1, number("MODELYARD_GATEWAYS", gateway_count, 1))
    name = environment.get("MODELYARD_PROCESS") or "gateway"
    if name not in gateway_names(gateways):
        raise ValueError(
            f"MODELYARD_PROCESS is {name!r}: no gateway of MODELYARD_GATEWAYS="
            f"{gateways} has that name."
        )
    most = number("MODELYARD_MAX_UPLOAD_BYTES", int, _DEFAULT_MAX_UPLOAD_BYTES)
    relayed = number(
        "MODELYARD_MAX_RELAYED_BYTES",
        int,
        max(_DEFAULT_MAX_RELAYED_BYTES, 2 * most * gateways),
    )
    least = (most + MEMORY_BYTES) * gateways
    if relayed < least:
        raise ValueError(
            f"MODELYARD_MAX_RELAYED_BYTES is {relayed}, but each of MODELYARD_GATEWAYS="
            f"{gateways} needs room for a body of MODELYARD_MAX_UPLOAD_BYTES={most} and"
            f" its answer: {least} in all."
        )
    port = number("MODELYARD_PORT", int, _DEFAULT_PORT)
    root = Path(environment.get("MODELYARD_HOME") or "var").resolve()
    return GatewaySettings(
        home=Home(root),
        name=name,
        gateways=gateways,
        host=environment.get("MODELYARD_HOST") or "127.0.0.1",
        public_url=environment.get("MODELYARD_PUBLIC_URL")
        or f"http://127.0.0.1:{port}",
        port=port,
        operator_host=environment.get("MODELYARD_OPERATOR_HOST") or "127.0.0.1",
        operator_port=number(
            "MODELYARD_OPERATOR_PORT", int, port + 1 if port else port
        ),
        grpc_port=number("MODELYARD_GRPC_PORT", int, 0),
        grpc_certificate=certificate,
        grpc_key=key,
        grpc_client_ca=client_ca,
        trusted_proxies=networks("MODELYARD_TRUSTED_PROXIES"),
        max_connections=number("MODELYARD_MAX_CONNECTIONS", int, 10_000),
        max_body_bytes=number("MODELYARD_MAX_BODY_BYTES", int, MAX_BODY_BYTES),
        max_image_pixels=number("MODELYARD_MAX_IMAGE_PIXELS", int, MAX_PIXELS),
        max_binary_body_bytes=number(
            "MODELYARD_MAX_BINARY_BODY_BYTES", int, DEFAULT_MAX_BINARY_BODY_BYTES
        ),
        max_upload_bytes=most,
        max_relayed_bytes=relayed,
        site_workers=max(1, number("MODELYARD_SITE_WORKERS", int, 1)),
        max_timeout_s=number("MODELYARD_MAX_TIMEOUT_S", float, DEFAULT_TIMEOUT_S),
        max_streams=number("MODELYARD_MAX_STREAMS", int, DEFAULT_MAX_STREAMS),
        max_stream_s=number("MODELYARD_MAX_STREAM_S", float, DEFAULT_MAX_STREAM_S),
        cache_max_entries=number("MODELYARD_CACHE_MAX_ENTRIES", int, cache.MAX_ENTRIES),
        cache_max_bytes=number("MODELYARD_CACHE_MAX_BYTES", int, cache.MAX_BYTES),
        upload_min_bytes_per_s=number(
            "MODELYARD_UPLOAD_MIN_BYTES_PER_S", float, float(MIN_BYTES_PER_S)
        ),
        site_timeout_s=number("MODELYARD_SITE_TIMEOUT_S", float, 10.0),
        header_timeout_s=number("MODELYARD_HEADER_TIMEOUT_S", float, 10.0),
        body_timeout_s=number("MODELYARD_BODY_TIMEOUT_S", float, 20.0),
        overdraft_percent=number("MODELYARD_OVERDRAFT_PERCENT", float, 5.0),
        spool_max_bytes=number("MODELYARD_SPOOL_MAX_BYTES", int, 4 * 1024**3),
        log_level=logs.level_of(environment),
        log_calls=_share_of_calls(environment.get("LOG_CALLS", "")),
    )
