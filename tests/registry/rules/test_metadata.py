import pytest

from registry.rules import metadata
from registry.rules.column_rules import InputColumn
from tests.factories_registry import TENSOR_SIGNATURE

GOOD = {
    "task": "classification",
    "columns": ["width", "height"],
    "labels": ["small", "large"],
    "decision_threshold": 0.5,
    "low_confidence_below": 0.7,
    "rules": {"width": {"min": 0, "max": 10}, "height": {"optional": True}},
    "background": "background.npy",
    "example_tolerance": 0.001,
}


def test_whole_metadata_has_no_problems():
    assert metadata.check(GOOD, TENSOR_SIGNATURE) == []


def test_no_metadata_at_all_is_fine():
    assert metadata.check({}, TENSOR_SIGNATURE) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "guessing"}, "task: 'guessing' is not one of"),
        ({"lables": ["a"]}, "Additional properties are not allowed"),
        ({"columns": ["width", "width"]}, "columns: "),
        ({"low_confidence_below": 70}, "low_confidence_below: 70 is greater"),
        ({"rules": {"width": {"minimum": 1}}}, "rules.width: "),
        ({"columns": ["width"]}, "columns: 1 names, but"),
        ({"labels": ["a", "b", "c"]}, "labels: 3 of them, but the model has 2"),
        ({"rules": {"depth": {"min": 1}}}, "rules: the model has no column 'depth'"),
        ({"rules": {"width": {"min": 2, "max": 1}}}, "rules.width: min is greater"),
        ({"background": "../secret"}, "background: must be a path inside"),
        ({"background": "/etc/passwd"}, "background: must be a path inside"),
    ],
)
def test_each_problem_is_said_in_a_sentence(change, sentence):
    problems = metadata.check({**GOOD, **change}, TENSOR_SIGNATURE)

    assert any(
        problem.startswith(sentence) or sentence in problem for problem in problems
    )
    assert all(problem.endswith(".") for problem in problems)


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_metadata_that_is_no_mapping_is_told(document):
    assert len(metadata.check(document, {})) == 1


def test_a_single_score_goes_with_two_labels():
    one_score = {
        **TENSOR_SIGNATURE,
        "outputs": [{"type": "tensor", "tensor-spec": {"shape": [-1, 1]}}],
    }

    assert metadata.check(GOOD, one_score) == []


def test_a_routes_rules_are_checked_against_its_columns():
    columns = [InputColumn("width", "float", True)]

    assert metadata.check_rules({"width": {"min": 1}}, columns=columns) == []
    assert metadata.check_rules({"depth": {"min": 1}}, columns=columns) != []
    assert metadata.check_rules([], columns=columns) != []


def picture(*shape):
    spec = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, *shape]}}
    return {"inputs": [spec]}


@pytest.mark.parametrize(
    ("image", "shape", "sentence"),
    [
        ({"mode": "CMYK"}, (8, 8, 3), "image.mode: 'CMYK' is not one of"),
        ({"mode": "RGB"}, (8,), "image: pictures need one input tensor"),
        ({"mode": "RGB"}, (8, 8), "image: mode RGB needs an axis"),
        ({"mode": "RGB"}, (8, 8, 1), "image: mode RGB has 3 channels"),
        ({"mode": "L", "height": 9}, (8, 8), "image.height: the signature's rows"),
        ({"mode": "RGB", "height": 9}, (-1, -1, 3), "image.width: is needed"),
    ],
)
def test_pictures_must_fit_the_input_tensor(image, shape, sentence):
    (problem,) = metadata.check({"image": image}, picture(*shape))

    assert sentence in problem


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        ({"mode": "RGB"}, (3, 8, 8)),
        ({"mode": "RGB", "channels_first": False}, (8, 6, 3)),
        ({"mode": "L"}, (8, 6)),
        ({"mode": "L", "height": 8, "width": 6}, (-1, -1)),
    ],
)
def test_pictures_that_fit_have_no_problems(image, shape):
    assert metadata.check({"image": image}, picture(*shape)) == []


def test_only_embeddings_are_normalized():
    assert metadata.check({"task": "embedding", "normalize": True}, {}) == []
    assert "normalize" in metadata.check({"normalize": True}, {})[0]


def test_batching_has_its_bounds():
    good = {"max_wait_ms": 2.5, "max_batch_rows": 64, "max_batch_bytes": 1_000_000}

    assert metadata.check({"batching": good}, {}) == []
    assert "max_wait_ms" in metadata.check({"batching": {"max_wait_ms": -1}}, {})[0]
    assert metadata.check_batching({"max_rows": 1})


def token_inputs(*names, length=-1):
    spec = {"dtype": "int64", "shape": [-1, length]}
    return {
        "inputs": [
            {"type": "tensor", "name": name, "tensor-spec": spec} for name in names
        ]
    }


def test_padding_needs_a_length_that_varies_and_a_mask_that_exists():
    padding = {"value": 0, "buckets": [16, 32], "mask_input": "mask"}
    rule = {"padding": padding}

    assert metadata.check(rule, token_inputs("ids", "mask")) == []
    assert "no input 'mask'" in metadata.check(rule, token_inputs("ids"))[0]
    [fixed] = metadata.check(rule, token_inputs("ids", "mask", length=4))
    assert "no input tensor has a size of -1" in fixed


@pytest.mark.parametrize(
    "wrong",
    [{"buckets": []}, {"buckets": [0]}, {"buckets": [8, 8]}, {"side": "left"}],
)
def test_padding_has_its_bounds(wrong):
    assert "padding" in metadata.check({"padding": wrong}, {})[0]


def test_precision_is_one_of_three():
    assert metadata.check({"precision": "auto"}, {}) == []
    assert "precision" in metadata.check({"precision": "float8"}, {})[0]
