"""Define Python models as people write them for MLflow."""

import numpy as np
from mlflow.pyfunc import PythonModel


class Writer(PythonModel):
    """A model that repeats a text; parameters set the number and the separator."""

    def predict(self, context, model_input, params=None):
        return [
            {"text": (params["between"]).join([text] * params["times"])}
            for text in model_input["text"]
        ]

    def predict_stream(self, context, model_input, params=None):
        for index in range(params["times"]):
            yield {"index": index, "text": model_input["text"]}


class OnlyStreams(PythonModel):
    closed = False

    def predict(self, context, model_input, params=None):
        raise NotImplementedError

    def predict_stream(self, context, model_input, params=None):
        try:
            yield from model_input["text"]
        finally:
            type(self).closed = True


class Chat(PythonModel):
    """A model with MLflow's type hints: it takes a list and returns nested objects."""

    def predict(self, model_input: list[str]):
        return [{"words": text.split(), "first": text[:1]} for text in model_input]


class Everything(PythonModel):
    """A model that returns what arrived in each column."""

    def predict(self, context, model_input, params=None):
        types = {name: str(dtype) for name, dtype in model_input.dtypes.items()}
        return [
            {
                "types": types,
                "year": row["when"].year,
                "bytes": row["raw"].decode(),
                "tags": row["tags"],
                "name": row["profile"]["name"],
            }
            for _, row in model_input.iterrows()
        ]


class Vectors(PythonModel):
    def predict(self, context, model_input, params=None):
        return np.array([[len(text), 1.0] for text in model_input["text"]])


class Sums(PythonModel):
    def predict(self, context, model_input, params=None):
        return {name: values.sum(axis=1) for name, values in model_input.items()}


class Gaps(PythonModel):
    """A model that returns the names of the columns that a row lacks."""

    def predict(self, context, model_input, params=None):
        missing = model_input.isna()
        return [
            [name for name in missing.columns if row[name]]
            for _, row in missing.iterrows()
        ]


class MaybeRanked(PythonModel):
    """A model that ranks all rows of a batch, if a parameter says so."""

    def predict(self, context, model_input, params=None):
        count = len(model_input)
        return np.arange(count) if params["ranked"] else np.ones(count, np.int64)
