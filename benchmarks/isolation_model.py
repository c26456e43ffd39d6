"""A model that sleeps, burns a core, dies, or loads for long, as it was logged to."""

import os
import time

import mlflow
from mlflow.models import ModelConfig

config = ModelConfig(development_config={"deed": "", "load_s": 0.0})


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        deed = config.get("deed")
        if deed == "sleep":
            time.sleep(0.3 * len(model_input))
        elif deed == "burn":
            ends_at = time.monotonic() + 0.5 * float(model_input["x"].sum())
            while time.monotonic() < ends_at:
                pass
        elif deed == "die" and float(model_input["x"].iloc[0]) == 4711.0:
            os._exit(1)
        return model_input["x"] * 2


time.sleep(config.get("load_s"))
mlflow.models.set_model(Model())
