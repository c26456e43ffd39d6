"""Predict the progress of diabetes in a year from ten measurements: regression.

Run it with `python examples/diabetes.py`.
"""

import tracking  # first, as it says what MLflow reads on import

# isort: split

import mlflow
import torch
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

MODEL = "diabetes"

# Full names for scikit-learn's short names, and the allowed values of each.
COLUMNS = {
    "age": {"min": 0, "max": 120},
    "sex": {"enum": [1, 2]},
    "body_mass_index": {"min": 10, "max": 80},
    "blood_pressure": {"min": 30, "max": 200},
    "total_cholesterol": {"min": 0, "max": 1000},
    "ldl": {"min": 0, "max": 800},
    "hdl": {"min": 0, "max": 300},
    "cholesterol_ratio": {"min": 0, "max": 50},
    "log_triglycerides": {"min": 0, "max": 10},
    "glucose": {"min": 0, "max": 600},
}


class Progression(nn.Module):
    """An MLP with scaling inside: raw measurements in, a disease index out."""

    def __init__(self, rows: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", rows.mean(dim=0))
        self.register_buffer("std", rows.std(dim=0))
        self.register_buffer("target_mean", targets.mean())
        self.register_buffer("target_std", targets.std())
        self.layers = nn.Sequential(
            nn.Linear(rows.shape[1], 32), nn.Tanh(), nn.Linear(32, 1)
        )

    def forward(self, rows: Tensor) -> Tensor:
        standardized = self.layers((rows - self.mean) / self.std).squeeze(-1)
        return standardized * self.target_std + self.target_mean


def train(rows: Tensor, targets: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = Progression(rows, targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    scale = targets.var()
    for _ in range(150):
        optimizer.zero_grad()
        (nn.functional.mse_loss(model(rows), targets) / scale).backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    registration = tracking.begin(MODEL)
    data = load_diabetes(scaled=False)
    train_x, test_x, train_y, test_y = train_test_split(
        data.data.astype("float32"),
        data.target.astype("float32"),
        test_size=0.25,
        random_state=0,
    )
    model = train(torch.from_numpy(train_x), torch.from_numpy(train_y))
    with torch.no_grad():
        predicted = model(torch.from_numpy(test_x)).numpy()
    metrics = {
        "test_r2": float(r2_score(test_y, predicted)),
        "test_mae": float(mean_absolute_error(test_y, predicted)),
    }
    with mlflow.start_run(run_name="MLP 32"):
        logged = mlflow.pytorch.log_model(
            model,
            name="model",
            registered_model_name=MODEL,
            signature=infer_signature(test_x, predicted),
            input_example=test_x[:2],
            extra_files=[
                tracking.save_background(train_x[:100]),
                tracking.save_outputs(predicted[:2]),
            ],
            pip_requirements=["torch", "numpy"],
            metadata={
                "modelyard": {
                    "task": "regression",
                    "columns": list(COLUMNS),
                    "rules": COLUMNS,
                    "background": "extra_files/background.npy",
                }
            },
        )
        mlflow.log_metrics(metrics, model_id=logged.model_id)
    registration.set_alias("champion", logged.registered_model_version)
    registration.describe(
        "Progression of diabetes one year after ten measurements, on the scale of "
        "25 to 346 of Efron et al. (2004). A demonstration, not a medical device."
    )
    registration.say(
        f"version {logged.registered_model_version}, test R² {metrics['test_r2']:.3f}, "
        f"mean absolute error {metrics['test_mae']:.1f}"
    )


if __name__ == "__main__":
    main()
