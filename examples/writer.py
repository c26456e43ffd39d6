"""Continue a text letter by letter, also as a stream; trained on Django's messages.

Run it with `python examples/writer.py`.
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
import torch
from catalogues import Sentence, read_sentences
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from torch import Tensor, nn
from writer_model import DEFAULTS, NOTHING, WriterNetwork, contexts

MODEL = "writer"


def read_english() -> list[Sentence]:
    """Return the messages without a gap from a removed placeholder."""
    return [
        each
        for each in read_sentences()
        if each.label == "en" and "“ ”" not in each.text
    ]


def to_samples(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return each letter and the letters before it; the end counts as a letter."""
    before = [text[:place] for text in texts for place in range(len(text) + 1)]
    after = [code for text in texts for code in (*map(ord, text), NOTHING)]
    return contexts(before), torch.tensor(after)


def train(before: Tensor, after: Tensor) -> WriterNetwork:
    torch.manual_seed(0)
    # Sorted, so NOTHING comes first.
    letters, classes = torch.unique(after, return_inverse=True)
    network = WriterNetwork(letters)
    optimizer = torch.optim.SparseAdam(network.parameters(), lr=0.1)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(3):
        for batch in torch.randperm(len(before)).split(256):
            optimizer.zero_grad()
            loss_of(network(before[batch]), classes[batch]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def measure(network: WriterNetwork, texts: Sequence[str]) -> float:
    """Return the share of letters that the model predicts as the likeliest."""
    before, after = to_samples(texts)
    likeliest = network.letters[network(before).argmax(dim=1)]
    return float((likeliest == after).float().mean())


def main() -> None:
    registration = tracking.begin(MODEL)
    sentences = read_english()
    network = train(*to_samples([each.text for each in sentences if not each.is_test]))
    share = measure(network, [each.text for each in sentences if each.is_test])

    prompts = ["Enter a ", "The "]
    endings = [""] * len(prompts)
    for letters in network.write(prompts, **DEFAULTS):
        endings = [text + letter for text, letter in zip(endings, letters, strict=True)]
    weights = tracking.new_folder() / "weights.pt"
    torch.save(network.state_dict(), weights)
    with mlflow.start_run(run_name="Log-linear over n-grams"):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("writer_model.py")),
            artifacts={
                "weights": str(weights),
                "output_example": tracking.save_outputs(endings),
            },
            registered_model_name=MODEL,
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "prompt")]),
                outputs=Schema([ColSpec("string", "text")]),
                params=ParamSchema(
                    [
                        ParamSpec("temperature", "double", DEFAULTS["temperature"]),
                        ParamSpec("seed", "long", DEFAULTS["seed"]),
                        ParamSpec("max_letters", "long", DEFAULTS["max_letters"]),
                    ]
                ),
            ),
            input_example=pd.DataFrame({"prompt": prompts}),
            pip_requirements=["mlflow", "torch", "pandas"],
            metadata={
                "modelyard": {
                    "task": "text",
                    "rules": {"prompt": {"max_length": 10_000}},
                }
            },
        )
        mlflow.log_metrics({"test_letters_guessed": share}, model_id=logged.model_id)
    registration.set_alias("champion", logged.registered_model_version)
    registration.describe(
        "How a message of Django's admin might go on, word by word where it is "
        "streamed. It knows letters and no meaning."
    )
    registration.say(
        f"version {logged.registered_model_version}, {len(sentences)} sentences, "
        f"guesses {share:.0%} of unseen letters"
    )


if __name__ == "__main__":
    main()
