"""Define the writer as MLflow stores and loads it: a beginning in, the rest out.

MLflow copies this file into the artifact ("models from code"). It imports no other file
of this folder.
"""

from collections.abc import Iterator
from operator import add
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import torch
from torch import Tensor, nn

LONGEST_NGRAM = 6
BUCKETS = 2**15
# Code of "no letter", before the beginning and after the end of a text.
NOTHING = 0
DEFAULTS = {"temperature": 0.5, "seed": 0, "max_letters": 200}
_MOST_LETTERS = 1000
_PRIMES = (1_000_003, 7_919, 104_729)
_MODULUS = 2**31 - 1


def contexts(texts: list[str]) -> Tensor:
    """Return the last letters of each text as code points, the newest last."""
    padded = [
        [NOTHING] * LONGEST_NGRAM + [ord(each) for each in text] for text in texts
    ]
    return torch.tensor([codes[-LONGEST_NGRAM:] for codes in padded])


class WriterNetwork(nn.Module):
    """Score the next letter: the sum over the n-grams that end before it."""

    def __init__(self, letters: Tensor) -> None:
        """Make a model of these letters (code points); the first one is NOTHING."""
        super().__init__()
        self.register_buffer("letters", letters)
        self.scores = nn.EmbeddingBag(BUCKETS, len(letters), mode="sum", sparse=True)
        nn.init.zeros_(self.scores.weight)

    def forward(self, letters: Tensor) -> Tensor:
        hashes = torch.zeros(len(letters), dtype=torch.int64)
        buckets = []
        for length in range(1, LONGEST_NGRAM + 1):
            hashes = (hashes * _PRIMES[0] + letters[:, -length] + 1) % _MODULUS
            buckets.append((hashes * _PRIMES[1] + length * _PRIMES[2]) % BUCKETS)
        return self.scores(torch.stack(buckets, dim=1))

    def write(
        self, texts: list[str], *, temperature: float, seed: int, max_letters: int
    ) -> Iterator[list[str]]:
        """Return the next letter of every text; "" if the text has ended.

        A letter is drawn by the Gumbel-max trick. All texts share its noise, so no text
        depends on the others in its batch.
        """
        random = torch.Generator().manual_seed(seed)
        letters, ended = contexts(texts), torch.zeros(len(texts), dtype=torch.bool)
        for _ in range(min(max_letters, _MOST_LETTERS)):
            noise = -torch.rand(len(self.letters), generator=random).log().neg().log()
            best = (self(letters) + temperature * noise).argmax(dim=1)
            written = self.letters[best]
            ended |= written == NOTHING
            if ended.all():
                return
            letters = torch.cat([letters[:, 1:], written[:, None]], dim=1)
            yield [
                "" if over else chr(code)
                for over, code in zip(ended.tolist(), written.tolist(), strict=True)
            ]


class WriterModel(mlflow.pyfunc.PythonModel):
    """The MLflow model: a table with a column `prompt` in, a continuation each out."""

    def load_context(self, context: Any) -> None:
        path = Path(context.artifacts["weights"])
        # Load tensors only; torch refuses a file with anything else.
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self.network = WriterNetwork(weights["letters"])
        self.network.load_state_dict(weights)
        self.network.eval().requires_grad_(False)

    def predict(
        self,
        context: Any,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        texts = [""] * len(model_input)
        prompts = [str(prompt) for prompt in model_input["prompt"]]
        for letters in self.network.write(prompts, **DEFAULTS | (params or {})):
            texts = list(map(add, texts, letters))
        return texts

    def predict_stream(
        self,
        context: Any,
        model_input: dict[str, Any],
        params: dict[str, Any] | None = None,
    ) -> Iterator[str]:
        """Yield word by word, each with the space that follows."""
        word = ""
        prompts = [str(model_input["prompt"])]
        for (letter,) in self.network.write(prompts, **DEFAULTS | (params or {})):
            word += letter
            if letter == " ":
                yield word
                word = ""
        if word:
            yield word


mlflow.models.set_model(WriterModel())
