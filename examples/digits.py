"""Recognise a digit in an image of 8×8 pixels with a small CNN.

Run it with `python examples/digits.py`.
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

import mlflow
import numpy as np
import torch
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

MODEL = "digits"


class Digits(nn.Module):
    """Rows of 8×8 grey values from 0 to 1 in, ten logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(32 * 4 * 4, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.unsqueeze(1))


def train(images: Tensor, digits: Tensor) -> nn.Module:
    torch.manual_seed(0)
    network = Digits()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(10):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss_of(network(images[batch]), digits[batch]).backward()
            optimizer.step()
    return nn.Sequential(network, nn.Softmax(dim=-1)).eval()


def main() -> None:
    registration = tracking.begin(MODEL)
    data = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        # The scale of decoded images: black is 0, white is 1.
        data.images.astype("float32") / 16,
        data.target,
        test_size=0.25,
        random_state=0,
        stratify=data.target,
    )
    model = train(torch.from_numpy(train_x), torch.from_numpy(train_y))
    with torch.no_grad():
        scores = model(torch.from_numpy(test_x)).numpy()
    accuracy = float(np.mean(scores.argmax(axis=1) == test_y))
    with mlflow.start_run(run_name="CNN 16-32"):
        logged = mlflow.pytorch.log_model(
            model,
            name="model",
            registered_model_name=MODEL,
            signature=infer_signature(test_x, scores),
            input_example=test_x[:2],
            extra_files=[
                tracking.save_background(train_x[:100]),
                tracking.save_outputs(scores[:2]),
            ],
            pip_requirements=["torch", "numpy"],
            metadata={
                "modelyard": {
                    "task": "classification",
                    "labels": [str(digit) for digit in data.target_names],
                    "low_confidence_below": 0.7,
                    "image": {"mode": "L", "height": 8, "width": 8},
                    "background": "extra_files/background.npy",
                }
            },
        )
        mlflow.log_metrics({"test_accuracy": accuracy}, model_id=logged.model_id)
    registration.set_alias("champion", logged.registered_model_version)
    registration.describe(
        "The digit in a picture, written in white on black; or in 8×8 grey values."
    )
    registration.say(
        f"version {logged.registered_model_version}, test accuracy {accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
