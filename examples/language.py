"""In which language a text is written, learned from Django's own translations.

    python examples/language.py

Django ships its messages in many languages. The test set is made of messages that were
seen in no language during training, so nothing can be learned by heart.
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

import gettext
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import django
import mlflow
import numpy as np
import pandas as pd
import torch
from language_model import LanguageNetwork, ngram_buckets, to_bags
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from torch import nn

MODEL = "language"

# Folders of Django's catalogues; what stands before "_" is the label.
CATALOGUES = (
    *("ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hu", "id"),
    *("it", "ja", "ko", "nl", "pl", "pt", "ro", "ru", "sv", "tr", "uk", "zh_Hans"),
)
LABELS = tuple(name.partition("_")[0] for name in CATALOGUES)
# Placeholders and markup are not language.
NOT_LANGUAGE = re.compile(r"%\(\w+\)[a-z]|%[sd%]|\{[^}]*\}|<[^>]*>|&\w+;|https?://\S+")
SHORTEST_TEXT = 8


class Sentence(NamedTuple):
    # The English message that it translates.
    message: str
    text: str
    label: str


def read_sentences() -> list[Sentence]:
    """Return every translated message once per language, English itself included."""
    found = {}
    for folder, label in zip(CATALOGUES, LABELS, strict=True):
        for message, translation in read_catalogues(folder):
            text = message if label == "en" else translation
            text = " ".join(NOT_LANGUAGE.sub(" ", text).split())
            # An untranslated message is English under a wrong label.
            if len(text) >= SHORTEST_TEXT and (label == "en" or text != message):
                found[message, text, label] = Sentence(message, text, label)
    return list(found.values())


def read_catalogues(folder: str) -> Iterator[tuple[str, str]]:
    root = Path(django.__file__).parent
    # The English catalogue is empty, as English is in the code; any other has the keys.
    name = "de" if folder == "en" else folder
    for path in sorted(root.glob(f"**/locale/{name}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
        # The one way to list the messages: gettext itself only looks them up.
        for key, translation in catalogue._catalog.items():
            message = key[0] if isinstance(key, tuple) else key
            # The empty message is the catalogue's own header.
            if message:
                yield message.rpartition("\x04")[2], translation


def is_test(message: str) -> bool:
    return zlib.crc32(message.encode()) % 5 == 0


def longest(sentences: list[Sentence], label: str) -> Sentence:
    return max(
        (each for each in sentences if each.label == label),
        key=lambda each: len(each.text),
    )


def train(sentences: list[Sentence]) -> LanguageNetwork:
    torch.manual_seed(0)
    bags = [torch.from_numpy(ngram_buckets(each.text)) for each in sentences]
    lengths = torch.tensor([len(bag) for bag in bags])
    classes = torch.tensor([LABELS.index(each.label) for each in sentences])
    # Some languages have more sentences than others; each shall count the same.
    counts = Counter(classes.tolist())
    weights = torch.tensor([1 / counts[index] for index in range(len(LABELS))])
    loss_of = nn.CrossEntropyLoss(weight=weights / weights.mean())
    network = LanguageNetwork(len(LABELS))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(6):
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
    test = [each for each in sentences if is_test(each.message)]
    network = train([each for each in sentences if not is_test(each.message)])
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
            python_model=str(Path(__file__).with_name("language_model.py")),
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
