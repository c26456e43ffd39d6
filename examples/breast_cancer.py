"""Classify tumours as malignant or benign from 30 measurements: three versions.

    python examples/breast_cancer.py

Version 1 is a linear model, version 2 an MLP (alias `champion`), version 3 the same MLP
retrained with dropout and another seed (alias `challenger`).
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

from dataclasses import dataclass

import mlflow
import numpy as np
import torch
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

MODEL = "breast-cancer"


@dataclass(frozen=True)
class Recipe:
    title: str
    hidden: int
    dropout: float
    seed: int
    alias: str | None


RECIPES = (
    Recipe("linear", hidden=0, dropout=0.0, seed=1, alias=None),
    Recipe("MLP 64-64", hidden=64, dropout=0.0, seed=2, alias="champion"),
    Recipe("MLP 64-64, dropout", hidden=64, dropout=0.3, seed=3, alias="challenger"),
)


class Standardize(nn.Module):
    """Scale every column inside the model, so that callers send raw values."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", rows.mean(dim=0))
        self.register_buffer("std", rows.std(dim=0))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std


def build(recipe: Recipe, rows: Tensor) -> nn.Sequential:
    columns, hidden = rows.shape[1], recipe.hidden
    if not hidden:
        return nn.Sequential(Standardize(rows), nn.Linear(columns, 2))
    return nn.Sequential(
        Standardize(rows),
        nn.Linear(columns, hidden),
        nn.ReLU(),
        nn.Dropout(recipe.dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(recipe.dropout),
        nn.Linear(hidden, 2),
    )


def train(recipe: Recipe, rows: Tensor, classes: Tensor) -> nn.Module:
    torch.manual_seed(recipe.seed)
    network = build(recipe, rows)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        loss_of(network(rows), classes).backward()
        optimizer.step()
    # The served model returns probabilities, not logits.
    return nn.Sequential(network, nn.Softmax(dim=-1)).eval()


def main() -> None:
    registration = tracking.begin(MODEL, versions=len(RECIPES))
    data = load_breast_cancer()
    columns = [str(name) for name in data.feature_names]
    train_x, test_x, train_y, test_y = train_test_split(
        data.data.astype("float32"),
        data.target,
        test_size=0.25,
        random_state=0,
        stratify=data.target,
    )
    example, background = test_x[:2], train_x[:100]
    greatest = data.data.max(axis=0)

    for version, recipe in enumerate(RECIPES, start=1):
        if version <= registration.existing_versions:
            continue
        model = train(recipe, torch.from_numpy(train_x), torch.from_numpy(train_y))
        with torch.no_grad():
            scores = model(torch.from_numpy(test_x)).numpy()
        metrics = {
            "test_accuracy": float(np.mean(scores.argmax(axis=1) == test_y)),
            "test_auc": float(roc_auc_score(test_y, scores[:, 1])),
        }
        with mlflow.start_run(run_name=recipe.title):
            logged = mlflow.pytorch.log_model(
                model,
                name="model",
                registered_model_name=MODEL,
                signature=infer_signature(test_x, scores),
                input_example=example,
                extra_files=[
                    tracking.save_background(background),
                    tracking.save_outputs(scores[:2]),
                ],
                # Listed here, because MLflow takes long to find them out.
                pip_requirements=["torch", "numpy"],
                metadata={
                    "modelyard": {
                        "task": "classification",
                        "columns": columns,
                        "labels": [str(name) for name in data.target_names],
                        "low_confidence_below": 0.8,
                        # No measurement is negative; ten times the greatest known
                        # value means a wrong unit or a misplaced decimal point.
                        "rules": {
                            column: {"min": 0, "max": round(10 * float(most), 3)}
                            for column, most in zip(columns, greatest, strict=True)
                        },
                        "background": "extra_files/background.npy",
                    }
                },
            )
            mlflow.log_metrics(metrics, model_id=logged.model_id)
        registration.say(
            f"version {logged.registered_model_version} ({recipe.title}), "
            f"test accuracy {metrics['test_accuracy']:.3f}, "
            f"AUC {metrics['test_auc']:.4f}"
        )
        if recipe.alias:
            registration.set_alias(recipe.alias, logged.registered_model_version)
    registration.describe(
        "Malignant or benign, from 30 measurements of cell nuclei in an image "
        "(Breast Cancer Wisconsin Diagnostic). A demonstration, not a medical device."
    )


if __name__ == "__main__":
    main()
