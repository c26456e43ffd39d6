import pytest

from inference.dialects.mlflow.scoring import MLFLOW
from inference.dialects.native.embedding import EMBEDDING
from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.gateway import routes
from inference.gateway.routes import PredictionPath


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/models/m/predict", PredictionPath("predict", "m")),
        ("/api/v1/models/m/predict/batch", PredictionPath("batch", "m")),
        ("/api/v1/models/m/explain", PredictionPath("explain", "m")),
        ("/api/v1/models/m/versions/3/predict", PredictionPath("predict", "m", "3")),
        ("/api/v1/models/m/versions/a/explain", PredictionPath("explain", "m", "a")),
        (
            "/api/v1/models/m/versions/3/predict/batch",
            PredictionPath("batch", "m", "3"),
        ),
        (
            "/api/v1/models/m/invocations",
            PredictionPath("batch", "m", None, MLFLOW),
        ),
        (
            "/api/v1/models/m/versions/3/embed",
            PredictionPath("embed", "m", "3", EMBEDDING),
        ),
        ("/api/v1/predict", PredictionPath("predict")),
        ("/api/v1/predict/batch", PredictionPath("batch")),
    ],
)
def test_predictions_are_found(path, expected):
    assert routes.find_prediction(path) == expected


@pytest.mark.parametrize(
    ("path", "version"),
    [("/v2/models/m/infer", None), ("/v2/models/m/versions/3/infer", "3")],
)
def test_infer_speaks_the_open_inference_protocol(path, version):
    expected = PredictionPath("predict", "m", version, OPEN_INFERENCE)

    assert routes.find_prediction(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/models",
        "/api/v1/models/",
        "/api/v1/models/m",
        "/api/v1/models//predict",
        "/api/v1/models/m/predict/",
        "/api/v1/models/m/versions//predict",
        "/api/v1/models/m/versions/3",
        "/api/v1/models/m/versions/3/other",
        "/api/v1/jobs",
        "/v2/models/m",
        "/v2/models//infer",
        "/v2/models/m/versions//infer",
        "/v2/models/m/versions/3/other",
    ],
)
def test_other_paths_are_left_to_the_site(path):
    assert routes.find_prediction(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/internal/leases",
        "//internal/leases",
        "/INTERNAL",
        "/Metrics/",
    ],
)
def test_private_paths_are_known_in_any_spelling(path):
    assert routes.is_private(path)


@pytest.mark.parametrize("path", ["/", "/internals", "/docs/internal"])
def test_public_paths_are_not_private(path):
    assert not routes.is_private(path)


@pytest.mark.parametrize("path", ["/x/../y", "/./x", "/x/..", "/."])
def test_dots_that_lead_elsewhere_are_found(path):
    assert routes.has_dots(path)


@pytest.mark.parametrize("path", ["/", "/.x/..y/...", "/x./y../z", "*"])
def test_other_dots_are_part_of_a_name(path):
    assert not routes.has_dots(path)
