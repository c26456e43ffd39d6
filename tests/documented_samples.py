"""Find the samples of the documents: the text between fences, by language."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Their commands change the machine, so they have a test of their own.
_OWN_TEST = ("docs/deployment.md", "docs/install.md")


class Sample(NamedTuple):
    document: str
    line: int
    language: str
    text: str


def samples(language: str) -> list[Sample]:
    """Return all samples of one language in their order."""
    found = []
    for path in sorted(
        (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"))
    ):
        name = str(path.relative_to(ROOT))
        text = path.read_text()
        for fence in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
            if fence[1] == language and name not in _OWN_TEST:
                line = text.count("\n", 0, fence.start()) + 1
                found.append(Sample(name, line, language, fence[2]))
    return found


def logs_a_model(sample: Sample) -> bool:
    """Return whether a sample is for data scientists; these call no server."""
    return "mlflow." in sample.text or "ModelSignature" in sample.text
