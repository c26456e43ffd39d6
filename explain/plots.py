"""Waterfall plots as SVG, drawn by shap in a process of its own.

shap takes seconds to import and matplotlib a few tenths of a second to draw, both while
holding the interpreter's lock; in the engine's process predictions would wait for that.
"""

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from inference.engine.errors import EngineError, EngineErrorCode

_TIMEOUT_S = 25
_MOST_BARS = 12
_LONGEST_NAME = 32

_lock = threading.Lock()
_pool: ProcessPoolExecutor | None = None


def draw_waterfall(
    *,
    names: Sequence[str],
    row: Sequence[float | bool | None],
    values: Sequence[float],
    base_value: float,
    title: str,
) -> str:
    """Return the plot of one explanation; raise EngineError if it cannot be drawn."""
    arguments = (list(names), list(row), list(values), base_value, title)
    try:
        return _get_pool().submit(_draw, *arguments).result(_TIMEOUT_S)
    except (BrokenProcessPool, TimeoutError) as error:
        close()
        raise EngineError(
            EngineErrorCode.OVERLOADED, "the plot was not drawn", retry_after_ms=1000
        ) from error


def close() -> None:
    """Let the drawing process go; the next plot starts another."""
    global _pool
    with _lock:
        if _pool is not None:
            _pool.shutdown(wait=False, cancel_futures=True)
        _pool = None


def _get_pool() -> ProcessPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Not forked: a fork would copy the engine's threads' locks.
            _pool = ProcessPoolExecutor(
                max_workers=1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_live_as_long_as_parent,
            )
        return _pool


def _live_as_long_as_parent() -> None:
    """End with the engine, however it ends, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


def _draw(
    names: list[str],
    row: list[float | bool | None],
    values: list[float],
    base_value: float,
    title: str,
) -> str:
    """Draw in the other process, where pyplot's global state has one user."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import shap

    # Text stays text, to be searched, read aloud and drawn in the reader's fonts.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "modelyard"})
    shap.plots.waterfall(
        shap.Explanation(
            values=np.array(values),
            base_values=base_value,
            data=np.array(row, dtype=object),
            feature_names=[_shorten(name) for name in names],
        ),
        max_display=_MOST_BARS,
        show=False,
    )
    figure = plt.gcf()
    figure.axes[0].set_title(_shorten(title), fontsize=13, pad=28)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def _shorten(name: str) -> str:
    name = name.replace("_", " ").replace("$", r"\$")
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
