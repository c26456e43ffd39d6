"""Load a version as an engine does, and answer widths, one line of JSON each."""

import json
import sys

import msgspec
import numpy as np

from inference.engine.runners import runner
from inference.engine.wire.messages import VersionToLoad
from inference.engine.wire.tensors import Tensor

version = msgspec.json.decode(sys.stdin.readline(), type=VersionToLoad)
loaded = runner.load(version, "cpu")
import sklearn  # noqa: E402 - loading a version imports it

print(sklearn.__version__, "torch" in sys.modules, flush=True)
for line in sys.stdin:
    widths = np.array(json.loads(line))
    (answer,) = loaded.runner.run(
        [Tensor("width", widths), Tensor("height", np.zeros(len(widths)))]
    )
    print(json.dumps(answer.data.tolist()), flush=True)
