"""Recognise the language of a text; trained on Django's translations.

Run it with `python examples/language.py`.
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import torch
from catalogues import LABELS, Sentence, read_sentences
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from text_model import LanguageNetwork, ngram_buckets, to_bags
from torch import nn

MODEL = "language"


def longest(sentences: Sequence[Sentence], label: str) -> Sentence:
    return max(
        (each for each in sentences if each.label == label),
        key=lambda each: len(each.text),
    )


def train(sentences: Sequence[Sentence]) -> LanguageNetwork:
    torch.manual_seed(0)
    bags = [torch.from_numpy(ngram_buckets(each.text)) for each in sentences]
    lengths = torch.tensor([len(bag) for bag in bags])
    classes = torch.tensor([LABELS.index(each.label) for each in sentences])
    # Some languages have more sentences than others; weight all languages equally.
    counts = Counter(classes.tolist())
    weights = torch.tensor([1 / counts[index] for index in range(len(LABELS))])
    loss_of = nn.CrossEntropyLoss(weight=weights / weights.mean())
    network = LanguageNetwork(len(LABELS))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03, fused=True)
    for _ in range(4):
        for batch in torch.randperm(len(bags)).split(256):
            buckets = torch.cat([bags[index] for index in batch])
            starts = lengths[batch].cumsum(0) - lengths[batch]
            optimizer.zero_grad()
            loss_of(network(buckets, starts), classes[batch]).backward()
            optimizer.step()
    return network.eval()


def main() -> None:
    registration = tracking.begin(MODEL)
    sentences = read_sentences()
    test = [each for each in sentences if each.is_test]
    network = train([each for each in sentences if not each.is_test])
    with torch.inference_mode():
        scores = network(*to_bags([each.text for each in test])).softmax(-1).numpy()
    right = np.array(
        [
            LABELS[best] == each.label
            for best, each in zip(scores.argmax(axis=1), test, strict=True)
        ]
    )
    accuracy = float(right.mean())

    example = [longest(test, label) for label in ("fr", "fi")]
    with torch.inference_mode():
        outputs = network(*to_bags([each.text for each in example])).softmax(-1)
    weights = tracking.new_folder() / "weights.pt"
    torch.save(network.state_dict(), weights)
    with mlflow.start_run(run_name="EmbeddingBag over n-grams"):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("text_model.py")),
            artifacts={
                "weights": str(weights),
                "output_example": tracking.save_outputs(outputs.numpy()),
            },
            registered_model_name=MODEL,
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "text")]),
                outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(LABELS)))]),
            ),
            input_example=pd.DataFrame({"text": [each.text for each in example]}),
            pip_requirements=["mlflow", "torch", "numpy", "pandas"],
            metadata={
                "modelyard": {
                    "task": "classification",
                    "labels": list(LABELS),
                    "low_confidence_below": 0.7,
                    "rules": {"text": {"max_length": 10_000}},
                }
            },
        )
        mlflow.log_metrics(
            {"test_accuracy": accuracy, "test_sentences": len(test)},
            model_id=logged.model_id,
        )
    registration.set_alias("champion", logged.registered_model_version)
    registration.describe(
        f"The language of a text, one of {len(LABELS)}, as its ISO 639-1 code."
    )
    registration.say(
        f"version {logged.registered_model_version}, {len(LABELS)} languages, "
        f"{len(sentences)} sentences, test accuracy {accuracy:.3f} on {len(test)}"
    )


if __name__ == "__main__":
    main()
