"""Read the settings of an engine process from its environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from inference.installation.home import engine_of_device

_PREFIX = "MODELYARD_ENGINE_"


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings from MODELYARD_HOME and MODELYARD_ENGINE_<FIELD IN CAPITALS>."""

    home: str = "./var"
    """Folder of the installation, with the engine's socket and desired state."""

    device: str = "cpu"
    """Device that runs the models: `cpu`, `cuda:0` and so on; `auto`: the first."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Compile models while they load: `on`, `off`, or `auto` (on CUDA only)."""

    max_graphs: int = 8
    """Number of batch sizes per version that get their own CUDA graph; 0: none."""

    max_batch_rows: int = 256
    """Most rows in one forward pass."""

    max_batch_bytes: int = 16 * 1024 * 1024
    """Most bytes of input in one forward pass, unless a single row is larger."""

    max_wait_ms: float = 0.0
    """Time that a batch's first request waits for others, if a version sets none."""

    max_wait_limit_ms: float = 1000.0
    """Longest `max_wait_ms` that a version or a route may set."""

    max_queue_rows: int = 8192
    """Rows that may wait per version and priority; at most half for one customer."""

    max_queue_bytes: int = 128 * 1024 * 1024
    """Input bytes that may wait per version and priority; half for one customer."""

    max_queue_ms: float = 4000.0
    """Work that may wait, by a version's measured pace; half for one customer."""

    max_engine_queue_rows: int = 32_768
    """Rows that may wait in the whole engine; half for one customer, half for jobs."""

    max_engine_queue_bytes: int = 256 * 1024 * 1024
    """Input bytes that may wait in the whole engine, shared in the same way."""

    max_frame_bytes: int = 128 * 1024 * 1024
    """Greatest length of a message; a longer one closes its connection."""

    memory_budget_bytes: int = 0
    """Memory for all loaded versions together; 0: 80 % of the device's memory."""

    max_parallel_loads: int = 3
    """Versions that may load at the same time, if the memory has room for them."""

    inline_ms: float = 1.0
    """Run a batch on the event loop, without a thread, if it should take no longer."""

    torch_threads: int = 1
    """Threads inside one torch operation; more pay off only for large models."""

    plugins: tuple[str, ...] = ("explain.plugin:explain",)
    """Explainers as `module:function`; the first that can be imported is used."""

    max_explain_queue: int = 64
    """Explanations that may wait; more are refused at once."""

    max_streams: int = 16
    """Streams that may run at once, each in its own thread; more are refused."""

    warm_plugins: bool = True
    """Import explainers after the desired versions have loaded, not at first use."""

    max_scratch_bytes: int = 1024 * 1024 * 1024
    """Most bytes in the scratch folder of a process; over it, the process ends."""

    max_processes: int = 128
    """Most processes that one engine process may have, its own children included."""

    drain_s: float = 8.0
    """Time for accepted requests to finish after SIGTERM."""

    log_level: str = "info"
    """Lowest level to log, otherwise that of LOG_LEVEL: `debug`, `info`, `warning`…"""

    @property
    def name(self) -> str:
        """The device as a file name, e.g. `cuda-0`."""
        return engine_of_device(self.device)

    @property
    def root(self) -> Path:
        return Path(self.home).resolve()


class InvalidSettings(ValueError):
    """An engine cannot start with a value in its environment."""


def from_environment(environ: Mapping[str, str] | None = None) -> EngineSettings:
    """Read the settings; raise InvalidSettings with the variable's name."""
    if environ is None:
        environ = os.environ
    values: dict[str, object] = {}
    if level := environ.get("LOG_LEVEL"):
        values["log_level"] = level
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
        "max_parallel_loads",
        "torch_threads",
        "max_explain_queue",
        "max_streams",
        "max_scratch_bytes",
        "max_processes",
    ):
        if getattr(settings, field) < 1:
            raise InvalidSettings(f"{_PREFIX}{field.upper()} must be at least 1")
