import pytest

from registry.rules import column_rules
from registry.rules.column_rules import InputColumn

COLUMNS = [
    InputColumn("age", "integer", True),
    InputColumn("income", "double", False),
    InputColumn("city", "string", True),
    InputColumn("photo", "binary", False),
    InputColumn("sure", "boolean", True),
]


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"age": {"min": 0, "max": 130}},
        {"age": {"enum": [1, 2]}, "income": {"enum": [0.5, 1]}},
        {"city": {"max_length": 9, "enum": ["Rome"]}, "photo": {"max_length": 9}},
        {"income": {"optional": False}},
    ],
)
def test_rules_that_fit_their_columns_are_fine(rules):
    assert column_rules.problems_of_route(rules, COLUMNS) == []


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"size": {}}, "no column 'size'. It has age, income"),
        ({"city": {"min": 1}}, "rules.city: min and max are for numbers"),
        ({"sure": {"max": 1}}, "min and max are for numbers"),
        ({"age": {"max_length": 1}}, "rules.age: max_length is for text"),
        ({"age": {"min": 2, "max": 1}}, "min is greater than max"),
        ({"age": {"enum": [1.5]}}, "enum must hold integers only"),
        ({"age": {"enum": ["1"]}}, "enum must hold integers only"),
        ({"city": {"enum": [1]}}, "enum must hold text only"),
        ({"photo": {"enum": ["a"]}}, "enum is for text and numbers"),
        ({"age": {"min": 0, "enum": [-1, 1]}}, "outside min and max"),
        ({"age": {"optional": True}}, "cannot make it optional"),
    ],
)
def test_rules_that_make_no_sense_are_explained(rules, says):
    [problem] = column_rules.problems_of_route(rules, COLUMNS)

    assert says in problem


def test_columns_of_a_tensor_are_those_of_the_metadata():
    signature = {"inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32"}}]}

    columns = column_rules.columns_of({"columns": ["width"]}, signature)

    assert [(column.name, column.kind) for column in columns] == [("width", "number")]


def test_inputs_without_names_take_no_rules():
    [problem] = column_rules.problems_of({"width": {}}, [])

    assert "no names" in problem
