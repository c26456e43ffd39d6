"""Embed texts in 24 languages, so that texts with the same meaning are close.

    python examples/sentences.py

Contrastive learning pulls a message and its translations together and pushes different
messages apart, as in "Language-agnostic BERT Sentence Embedding" (Feng et al.).
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import torch
from catalogues import LABELS, Sentence, read_sentences
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from text_model import SentenceNetwork, ngram_buckets, to_bags
from torch import Tensor, nn

MODEL = "sentences"
TEMPERATURE = 0.1


def by_message(sentences: Sequence[Sentence]) -> list[list[str]]:
    """Group texts with the same meaning; leave out groups of one text."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in sentences:
        found[each.message].append(each.text)
    return [texts for texts in found.values() if len(texts) > 1]


def train(sentences: Sequence[Sentence]) -> SentenceNetwork:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    bags = [
        [torch.from_numpy(ngram_buckets(text)) for text in texts]
        for texts in by_message(sentences)
    ]
    counts = np.array([len(texts) for texts in bags])
    network = SentenceNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)
    loss_of = nn.CrossEntropyLoss()

    def embed(chosen: list[Tensor]) -> Tensor:
        lengths = torch.tensor([len(bag) for bag in chosen])
        return network(torch.cat(chosen), lengths.cumsum(0) - lengths)

    for _ in range(40):
        # Two texts of each message.
        first = draw.integers(counts)
        pairs = np.stack([first, (first + draw.integers(1, counts)) % counts])
        for batch in torch.randperm(len(bags)).split(256):
            one, other = (
                embed([bags[index][side[index]] for index in batch.tolist()])
                for side in pairs
            )
            likeness = one @ other.T / TEMPERATURE
            same = torch.arange(len(batch))
            optimizer.zero_grad()
            (loss_of(likeness, same) + loss_of(likeness.T, same)).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def measure(network: SentenceNetwork, sentences: Sequence[Sentence]) -> float:
    """Return the share of translations whose nearest English text is their original."""
    english = {each.message: each.text for each in sentences if each.label == "en"}
    others = [e for e in sentences if e.label != "en" and e.message in english]
    messages = list(english)
    likeness = (
        network(*to_bags([each.text for each in others]))
        @ network(*to_bags(list(english.values()))).T
    )
    nearest = likeness.argmax(dim=1).tolist()
    right = [
        messages[index] == each.message
        for index, each in zip(nearest, others, strict=True)
    ]
    return float(np.mean(right))


def main() -> None:
    registration = tracking.begin(MODEL)
    sentences = read_sentences()
    test = [each for each in sentences if each.is_test]
    network = train([each for each in sentences if not each.is_test])
    share = measure(network, test)

    example = ["Please enter a valid date.", "Bitte ein gültiges Datum eingeben."]
    vectors = network(*to_bags(example))
    weights = tracking.new_folder() / "weights.pt"
    torch.save(network.state_dict(), weights)
    with mlflow.start_run(run_name="Contrastive EmbeddingBag"):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("text_model.py")),
            artifacts={
                "weights": str(weights),
                "output_example": tracking.save_outputs(vectors.numpy()),
            },
            registered_model_name=MODEL,
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "text")]),
                outputs=Schema(
                    [TensorSpec(np.dtype("float32"), (-1, vectors.shape[1]))]
                ),
            ),
            input_example=pd.DataFrame({"text": example}),
            pip_requirements=["mlflow", "torch", "numpy", "pandas"],
            metadata={
                "modelyard": {
                    "task": "embedding",
                    "rules": {"text": {"max_length": 10_000}},
                }
            },
        )
        mlflow.log_metrics({"test_found": share}, model_id=logged.model_id)
    registration.set_alias("champion", logged.registered_model_version)
    registration.describe(
        f"The meaning of a short text in one of {len(LABELS)} languages, as a vector: "
        "translations lie near each other."
    )
    registration.say(
        f"version {logged.registered_model_version}, nearest of "
        f"{len({each.message for each in test})} unseen messages right for "
        f"{share:.0%} of their translations"
    )


if __name__ == "__main__":
    main()
