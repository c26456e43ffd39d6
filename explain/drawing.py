"""The process that draws plots: `python -m explain.drawing`, JSON lines in and out."""

import io
import json
import signal
import sys
from typing import Any

_MOST_BARS = 12
_LONGEST_NAME = 32


def main() -> None:
    # Ctrl-C reaches the whole group; this process ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = sys.stdout.buffer
    # Whatever a library prints must not get between the replies.
    sys.stdout = sys.stderr
    for line in sys.stdin.buffer:
        try:
            reply = {"svg": draw(json.loads(line))}
        except Exception as error:
            reply = {"error": f"the plot failed: {type(error).__name__}"}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def draw(plot: dict[str, Any]) -> str:
    """Draw one waterfall; `plot` has the arguments of `plots.draw_waterfall`."""
    # Deferred, so that Ctrl-C is ignored before these take seconds.
    import matplotlib as mpl

    # shap measures its labels, which the SVG canvas alone cannot.
    mpl.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import shap

    # Text stays text, to be searched, read aloud and drawn in the reader's fonts.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "modelyard"})
    shap.plots.waterfall(
        shap.Explanation(
            values=np.array(plot["values"]),
            base_values=plot["base_value"],
            data=np.array(plot["row"], dtype=object),
            feature_names=[_shorten(name) for name in plot["names"]],
        ),
        max_display=_MOST_BARS,
        show=False,
    )
    figure = plt.gcf()
    figure.axes[0].set_title(_shorten(plot["title"]), fontsize=13, pad=28)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def _shorten(name: str) -> str:
    shorter = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    # A dollar sign would start mathematics.
    return shorter.replace("_", " ").replace("$", r"\$")


if __name__ == "__main__":
    main()
