"""What an engine process may be told, all of it from its environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

_PREFIX = "MODELYARD_ENGINE_"


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Read from MODELYARD_HOME and MODELYARD_ENGINE_<FIELD IN CAPITALS>."""

    home: str = "./var"
    """Folder of the installation; its socket and desired state are below it."""

    device: str = "cpu"
    """What runs the models: `cpu`, `cuda:0` and so on, or `auto`: the first found."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Compile models before they are ready: `on`, `off`, or `auto`, on CUDA only."""

    max_graphs: int = 8
    """Sizes of batches, per version, with a CUDA graph of their own; 0: none."""

    max_batch_rows: int = 256
    """Rows in one forward pass at most."""

    max_batch_bytes: int = 16 * 1024 * 1024
    """Bytes of input in one forward pass at most, unless one row alone is larger."""

    max_wait_ms: float = 0.0
    """Time that a batch's first request waits for company, if a version sets none."""

    max_wait_limit_ms: float = 1000.0
    """The longest such time that a version or a route may set."""

    max_queue_rows: int = 8192
    """Rows that may wait per version and priority; half of them of one customer."""

    max_queue_bytes: int = 128 * 1024 * 1024
    """Bytes of input that may wait per version and priority; half of one customer."""

    max_queue_ms: float = 4000.0
    """Work that may wait, by the measured pace of a version; half of one customer."""

    max_engine_queue_rows: int = 32_768
    """Rows that may wait in the whole engine; half of one customer, half of jobs."""

    max_engine_queue_bytes: int = 256 * 1024 * 1024
    """Bytes of input that may wait in the whole engine, as with rows."""

    max_frame_bytes: int = 128 * 1024 * 1024
    """Length of one message at most; a longer one closes its connection."""

    memory_budget_bytes: int = 0
    """Memory that loaded versions may take together; 0: 80 % of the device's own."""

    inline_ms: float = 1.0
    """Batches expected to take no longer run on the event loop, without a thread."""

    torch_threads: int = 1
    """Threads inside one torch operation; more only pays for large models."""

    plugins: tuple[str, ...] = ("explain.plugin:explain",)
    """Explainers as `module:function`; the first that can be imported is used."""

    max_explain_queue: int = 64
    """Explanations that may wait; further ones are refused at once."""

    max_streams: int = 16
    """Streams that run at once, each in its own thread; further ones are refused."""

    warm_plugins: bool = True
    """Import explainers once the desired versions are loaded, not at first use."""

    drain_s: float = 8.0
    """Time that accepted requests get to finish after SIGTERM."""

    log_level: str = "info"
    """Least severe events to log: `debug`, `info`, `warning` or `error`."""

    @property
    def name(self) -> str:
        """The device as a file name, e.g. `cuda-0`."""
        return self.device.replace(":", "-")

    @property
    def root(self) -> Path:
        return Path(self.home).resolve()


class InvalidSettings(ValueError):
    """The environment holds a value that no engine can start with."""


def from_environment(environ: Mapping[str, str] | None = None) -> EngineSettings:
    """Read the settings; raise InvalidSettings with the name at fault."""
    if environ is None:
        environ = os.environ
    values: dict[str, object] = {}
    if home := environ.get("MODELYARD_HOME"):
        values["home"] = home
    for field in EngineSettings.__struct_fields__:
        text = environ.get(_PREFIX + field.upper())
        if text is None:
            continue
        values[field] = text.split(",") if field == "plugins" and text else text
        if field == "plugins" and not text:
            values[field] = ()
    try:
        settings = msgspec.convert(values, EngineSettings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidSettings(f"{_PREFIX}*: {error}") from error
    _check(settings)
    return settings


def _check(settings: EngineSettings) -> None:
    for field in (
        "max_batch_rows",
        "max_batch_bytes",
        "max_queue_rows",
        "max_queue_bytes",
        "max_queue_ms",
        "max_engine_queue_rows",
        "max_engine_queue_bytes",
        "max_frame_bytes",
        "torch_threads",
        "max_explain_queue",
        "max_streams",
    ):
        if getattr(settings, field) < 1:
            raise InvalidSettings(f"{_PREFIX}{field.upper()} must be at least 1")
