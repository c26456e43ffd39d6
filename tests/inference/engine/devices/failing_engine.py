"""Run an engine on a fake device that fails for good once a file named `poison` exists.

Like a real device it stays failed until its process ends, and works in the next.
"""

import os
import sys
from pathlib import Path

import torch

from inference.engine import __main__
from inference.engine.devices import opening
from tests.inference.engine.devices.fake_device import FakeDevice


class FailingDevice(FakeDevice):
    def launching(self):
        poison = Path(os.environ["MODELYARD_HOME"], "poison")
        if poison.exists():
            poison.unlink()
            self.error = torch.AcceleratorError("CUDA error: device-side assert")
        return super().launching()


if __name__ == "__main__":
    opening.register(FailingDevice(name="fake:0"))
    sys.exit(__main__.main())
