"""Log a model with the scikit-learn that runs this script, into the folder it gets."""

import sys
import warnings

import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.ensemble import GradientBoostingClassifier

warnings.simplefilter("ignore")
columns = pd.DataFrame({"width": np.arange(40.0), "height": np.arange(40.0) % 3})
classes = (np.arange(40) > 19).astype(int)
mlflow.sklearn.save_model(
    GradientBoostingClassifier(n_estimators=5).fit(columns, classes),
    sys.argv[1],
    serialization_format="cloudpickle",
    signature=infer_signature(columns, classes),
    input_example=columns[:2],
    pip_requirements=sys.argv[2:],
)
