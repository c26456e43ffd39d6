"""A model as code: says a text again, word by word where it is streamed."""

import time

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [str(text) for text in model_input["text"]]

    def predict_stream(self, context, model_input, params=None):
        for word in str(model_input["text"]).split():
            yield word
            time.sleep(0.3)


mlflow.models.set_model(Echo())
