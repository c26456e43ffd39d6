import pytest

from registry import metadata
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
    assert metadata.check_rules({"width": {"min": 1}}, columns=["width"]) == []
    assert metadata.check_rules({"depth": {"min": 1}}, columns=["width"]) != []
    assert metadata.check_rules([], columns=["width"]) != []
