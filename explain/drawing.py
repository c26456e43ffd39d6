"""Draw plots in a separate process: `python -m explain.drawing`, over JSON lines."""

import io
import json
import signal
import sys
from collections import Counter, defaultdict
from typing import Any

_MOST_BARS = 12
_LONGEST_NAME = 32
# Part of it for the end of a name, or for the place where names differ.
_LONGEST_END = 18


def main() -> None:
    # Ctrl-C reaches the whole process group; this process ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = sys.stdout.buffer
    # Keep what libraries print out of the replies.
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
    # Deferred: ignore Ctrl-C first, since these imports take seconds.
    import matplotlib as mpl

    # shap measures its labels, which the SVG canvas cannot do.
    mpl.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import shap

    # Keep text as text: it can be searched, read aloud and drawn in the reader's fonts.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "modelyard"})
    shap.plots.waterfall(
        shap.Explanation(
            values=np.array(plot["values"]),
            base_values=plot["base_value"],
            data=np.array(plot["row"], dtype=object),
            feature_names=shorten(plot["names"]),
        ),
        max_display=_MOST_BARS,
        show=False,
    )
    figure = plt.gcf()
    [title] = shorten([plot["title"]])
    figure.axes[0].set_title(title, fontsize=13, pad=28)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def shorten(names: list[str]) -> list[str]:
    """Return a short label for each name; different names get different labels."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name[: _LONGEST_NAME - 1]].append(name)
    labels: list[str] = []
    seen: Counter[str] = Counter()
    for name in names:
        # Replace before comparing: another name may have a space in this place.
        label = _shorten(name, alike[name[: _LONGEST_NAME - 1]]).replace("_", " ")
        seen[label] += 1
        labels.append(f"{label} ({seen[label]})" if seen[label] > 1 else label)
    # matplotlib reads a plain dollar sign as the start of a formula.
    return [label.replace("$", r"\$") for label in labels]


def _shorten(name: str, alike: list[str]) -> str:
    """Keep a name's beginning, and the part that differs from names like it."""
    if len(name) <= _LONGEST_NAME:
        return name
    others = [other for other in alike if other != name]
    if not others:
        return name[: _LONGEST_NAME - 1] + "…"
    differs = max(_same_beginning(name, other) for other in others)
    start = min(differs, len(name) - _LONGEST_END)
    rest = name[start:]
    if len(rest) > _LONGEST_END:
        rest = rest[: _LONGEST_END - 1] + "…"
    return name[: _LONGEST_NAME - _LONGEST_END - 1] + "…" + rest


def _same_beginning(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


if __name__ == "__main__":
    main()
