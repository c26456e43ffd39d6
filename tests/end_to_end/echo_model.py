"""A model from code that repeats a text; a stream repeats it word by word."""

import time

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if "please fail" in list(model_input["text"]):
            raise RuntimeError("it was asked to fail")
        return [str(text) for text in model_input["text"]]

    def predict_stream(self, context, model_input, params=None):
        for word in str(model_input["text"]).split():
            yield word
            time.sleep(0.3)


mlflow.models.set_model(Echo())
