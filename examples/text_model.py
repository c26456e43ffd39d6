"""Define the two text models as MLflow stores and loads them: text in, numbers out.

MLflow copies this file into the artifact ("models from code"), so training and serving
make n-grams with the same code. It imports no other file of this folder.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BUCKETS = 2**15
LONGEST_NGRAM = 4
# Odd 64-bit multipliers; unsigned overflow is intended.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FINISH = np.uint64(0xD6E8FEB86659FD93)


def ngram_buckets(text: str) -> NDArray[np.int64]:
    """Hash every character n-gram, of one to four letters, to a bucket."""
    padded = f" {' '.join(text.lower().split())} "
    letters = np.frombuffer(padded.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    hashes = np.zeros(len(letters) + 1, dtype=np.uint64)
    buckets = []
    for length in range(1, LONGEST_NGRAM + 1):
        if length > len(letters):
            break
        hashes = (hashes[:-1] + letters[length - 1 :] + np.uint64(length)) * _MIX
        hashes ^= hashes >> np.uint64(29)
        buckets.append((hashes * _FINISH) >> np.uint64(49))
    return np.concatenate(buckets).astype(np.int64)


def to_bags(texts: list[str]) -> tuple[Tensor, Tensor]:
    """Return the buckets of all texts in one array, and where each text begins."""
    bags = [ngram_buckets(text) for text in texts]
    starts = np.cumsum([0, *(len(bag) for bag in bags[:-1])])
    return torch.from_numpy(np.concatenate(bags)), torch.from_numpy(starts)


class LanguageNetwork(nn.Module):
    """A classifier: the mean of the n-grams' embeddings, then one linear layer."""

    def __init__(self, languages: int, width: int = 24) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(BUCKETS, width, mode="mean")
        nn.init.normal_(self.embeddings.weight, std=0.05)
        self.output = nn.Linear(width, languages)

    def forward(self, buckets: Tensor, starts: Tensor) -> Tensor:
        return self.output(self.embeddings(buckets, starts))


class SentenceNetwork(nn.Module):
    """An embedding: the mean of the n-grams' embeddings, scaled to length 1."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(BUCKETS, width, mode="mean")
        nn.init.normal_(self.embeddings.weight, std=0.05)

    def forward(self, buckets: Tensor, starts: Tensor) -> Tensor:
        return nn.functional.normalize(self.embeddings(buckets, starts), dim=-1)


class TextModel(mlflow.pyfunc.PythonModel):
    """The MLflow model: a table with a column `text` in, numbers for each text out.

    They are probabilities if the weights have an output layer, else a vector.
    """

    def load_context(self, context: Any) -> None:
        path = Path(context.artifacts["weights"])
        # Load tensors only; torch refuses a file with anything else.
        weights = torch.load(path, map_location="cpu", weights_only=True)
        width = weights["embeddings.weight"].shape[1]
        self.classifies = "output.bias" in weights
        self.network: nn.Module = (
            LanguageNetwork(len(weights["output.bias"]), width)
            if self.classifies
            else SentenceNetwork(width)
        )
        self.network.load_state_dict(weights)
        self.network.eval()

    def predict(
        self,
        context: Any,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        texts = [str(text) for text in model_input["text"]]
        with torch.inference_mode():
            outputs = self.network(*to_bags(texts))
            if self.classifies:
                outputs = outputs.softmax(dim=-1)
        return outputs.numpy()


mlflow.models.set_model(TextModel())
