"""What callers would notice of another version: a table of changes, and both ways."""

import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.rules.contracts import Contract, Field, contract_of
from registry.rules.schema_changes import compare, level_of


def column(name, kind="double", **more):
    return {"name": name, "type": kind, **more}


def tensor(*shape, name=None, dtype="float32"):
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}
    return spec if name is None else {**spec, "name": name}


def table(**changed):
    """Return a version with two columns, a parameter, two outputs and two labels."""
    signature = {
        "inputs": [column("age", "long"), column("note", "string", required=False)],
        "outputs": [column("label", "string"), column("score", "double")],
        "params": [{"name": "top", "type": "long", "default": 1, "shape": None}],
    }
    metadata = {"task": "classification", "labels": ["no", "yes"]}
    for name, value in changed.items():
        (signature if name in signature else metadata)[name] = value
    return contract_of(metadata, signature)


def rows(*specs, **metadata):
    return contract_of(metadata, {"inputs": list(specs)})


AGE, NOTE = column("age", "long"), column("note", "string", required=False)
LABEL, SCORE = column("label", "string"), column("score", "double")
TOP = {"name": "top", "type": "long", "default": 1}
CHANGES = {
    # what changes: (candidate, level, what its sentence says)
    "a column gone": (table(inputs=[AGE]), "breaking", "note: is gone; it was string"),
    "a new optional column": (
        table(inputs=[AGE, NOTE, column("zip", "string", required=False)]),
        "additive",
        "zip: is new and optional, of type string",
    ),
    "a new required column": (
        table(inputs=[AGE, NOTE, column("zip", "string")]),
        "breaking",
        "zip: is new and required, of type string",
    ),
    "a wider type": (
        table(inputs=[column("age", "double"), NOTE]),
        "additive",
        "age: the type long becomes double, which is wider",
    ),
    "a narrower type": (
        table(inputs=[column("age", "integer"), NOTE]),
        "breaking",
        "age: the type long becomes integer, which is narrower",
    ),
    "a type of another kind": (
        table(inputs=[column("age", "string"), NOTE]),
        "breaking",
        "age: the type long becomes string.",
    ),
    "required where it was optional": (
        table(inputs=[AGE, column("note", "string")]),
        "breaking",
        "note: was optional and becomes required",
    ),
    "optional by a rule": (
        table(rules={"age": {"optional": True}}),
        "additive",
        "age: was required and becomes optional",
    ),
    "another order": (
        table(inputs=[NOTE, AGE]),
        "breaking",
        "the order age, note becomes note, age",
    ),
    "a new limit": (
        table(rules={"age": {"max": 120}}),
        "breaking",
        "age: max none becomes 120",
    ),
    "an output gone": (table(outputs=[LABEL]), "breaking", "score: is gone"),
    "a new output": (
        table(outputs=[LABEL, SCORE, column("why", "string")]),
        "additive",
        "why: is new",
    ),
    "another type of output": (
        table(outputs=[LABEL, column("score", "float")]),
        "breaking",
        "score: the type double becomes float",
    ),
    "a parameter gone": (table(params=[]), "breaking", "top: is gone"),
    "a narrower parameter": (
        table(params=[{**TOP, "type": "integer"}]),
        "breaking",
        "top: the type long becomes integer",
    ),
    "a wider parameter": (
        table(params=[{**TOP, "type": "double"}]),
        "additive",
        "top: the type long becomes double",
    ),
    "a new parameter with a default": (
        table(params=[TOP, {"name": "seed", "type": "long", "default": 0}]),
        "additive",
        "seed: is new and optional",
    ),
    "a new parameter without a default": (
        table(params=[TOP, {"name": "seed", "type": "long"}]),
        "breaking",
        "seed: is new and required",
    ),
    "another default": (
        table(params=[{**TOP, "default": 5}]),
        "same",
        "top: the default 1 becomes 5",
    ),
    "a parameter that becomes a list": (
        table(params=[{**TOP, "shape": [-1]}]),
        "breaking",
        "top: the shape none becomes [-1]",
    ),
    "a label gone": (
        table(labels=["no"]),
        "breaking",
        "yes: is gone; the labels are no",
    ),
    "a new label": (
        table(labels=["no", "yes", "maybe"]),
        "additive",
        "maybe: is new; the labels were no, yes",
    ),
    "labels in another order": (
        table(labels=["yes", "no"]),
        "breaking",
        "the order no, yes becomes yes, no",
    ),
    "no labels": (
        table(labels=[]),
        "breaking",
        "Labels: no, yes become none",
    ),
    "another task": (
        table(task="regression"),
        "breaking",
        "the task classification becomes regression",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_has_its_level_and_names_field_and_values(change):
    candidate, level, words = CHANGES[change]

    [found] = compare(table(), candidate)

    assert found.level == level
    assert words in found.sentence
    assert level_of([found]) == level


SHAPES = [
    # old, new, level
    ((3,), (-1,), "additive"),
    ((-1,), (3,), "breaking"),
    ((3,), (4,), "breaking"),
    ((3,), (3, 1), "breaking"),
    ((-1, 3), (3, -1), "breaking"),
    ((3, 3), (-1, -1), "additive"),
]


@pytest.mark.parametrize(("old", "new", "level"), SHAPES)
def test_a_tensor_may_take_more_shapes_and_not_fewer(old, new, level):
    [change] = compare(rows(tensor(*old, name="x")), rows(tensor(*new, name="x")))

    assert change.level == level
    assert f"Input x: the shape {[-1, *old]} becomes {[-1, *new]}" in change.sentence


def test_a_tensor_of_another_dtype_breaks_those_who_send_tensors():
    wider = rows(tensor(3, dtype="float64"))

    [change] = compare(rows(tensor(3)), wider)

    assert change.level == "breaking"
    assert "the dtype float32 becomes float64" in change.sentence


def test_an_input_tensor_gone_or_new_is_breaking():
    one, two = tensor(3, name="ids"), tensor(3, name="mask")

    [gone] = compare(rows(one, two), rows(one))
    [new] = compare(rows(one), rows(one, two))

    assert (gone.level, new.level) == ("breaking", "breaking")
    assert "mask: is gone; it was float32 [-1, 3]" in gone.sentence


def test_columns_of_a_tensor_are_named_one_by_one():
    old = rows(tensor(2), columns=["width", "height"])
    new = rows(tensor(2), columns=["width", "depth"])

    changes = compare(old, new)

    assert level_of(changes) == "breaking"
    assert [change.sentence.split(":")[0] for change in changes] == [
        "Column height",
        "Column depth",
    ]


def test_names_for_the_columns_of_a_tensor_are_additive():
    named = rows(tensor(2), columns=["width", "height"])

    [change] = compare(rows(tensor(2)), named)
    lost = compare(named, rows(tensor(2)))

    assert change.level == "additive"
    assert "width, height" in change.sentence
    assert level_of(lost) == "breaking"


def test_a_second_output_turns_predictions_into_objects():
    old = contract_of({}, {"outputs": [SCORE]})
    new = contract_of({}, {"outputs": [SCORE, LABEL]})

    [change] = compare(old, new)

    assert change.level == "breaking"
    assert "predictions become objects" in change.sentence


NESTED = [
    ({"type": "array", "items": {"type": "long"}}, "array of long"),
    ({"type": "map", "values": {"type": "string"}}, "map of string"),
    (
        {
            "type": "object",
            "properties": {
                "b": {"type": "long", "required": False},
                "a": {"type": "array", "items": {"type": "double"}},
            },
        },
        "object of (a: array of double, b?: long)",
    ),
]


@pytest.mark.parametrize(("spec", "words"), NESTED)
def test_a_nested_type_is_compared_with_all_that_it_holds(spec, words):
    [change] = compare(rows(column("x", "any")), rows({"name": "x", **spec}))
    [wider] = compare(rows({"name": "x", **spec}), rows(column("x", "any")))

    assert f"the type any becomes {words}, which is narrower" in change.sentence
    assert (change.level, wider.level) == ("breaking", "additive")


def test_the_values_of_a_list_may_become_wider():
    of_integers = rows(column("x", "array", items={"type": "integer"}))
    of_doubles = rows(column("x", "array", items={"type": "double"}))

    [wider] = compare(of_integers, of_doubles)
    [narrower] = compare(of_doubles, of_integers)

    assert (wider.level, narrower.level) == ("additive", "breaking")


ODD = [
    {"type": "tensor"},
    {"type": "tensor", "tensor-spec": []},
    {"type": "tensor", "tensor-spec": {"dtype": None, "shape": None}},
    {"type": "tensor", "tensor-spec": {"dtype": 3, "shape": ["many", None]}},
    {"type": "array", "items": "double"},
    {"type": "array"},
    {"type": "map", "values": ["double"]},
    {"type": "object", "properties": ["a"]},
    {"type": "object", "properties": {"a": "double"}},
    {"type": ["double"], "name": {"of": "any shape"}},
    {},
]


@pytest.mark.parametrize("spec", ODD)
def test_what_an_author_wrote_by_mistake_is_compared_all_the_same(spec):
    odd = contract_of({}, {"inputs": [spec], "outputs": [spec], "params": [spec]})

    assert compare(odd, odd) == []
    assert level_of(compare(table(), odd)) == "breaking"


def test_an_enum_in_another_order_is_the_same():
    old = table(rules={"age": {"enum": [1, 2]}})
    new = table(rules={"age": {"enum": [2, 1]}})

    assert compare(old, new) == []


NAMES = st.sampled_from(["a", "b", "c"])
LIMITS = st.dictionaries(
    st.sampled_from(["min", "max", "max_length"]), st.integers(0, 3), max_size=2
) | st.sets(st.integers(0, 3), min_size=1).map(lambda some: {"enum": sorted(some)})


def fields(**parts):
    return st.lists(
        st.builds(Field, NAMES, **parts), max_size=3, unique_by=lambda it: it.name
    ).map(tuple)


TYPES = st.sampled_from(["integer", "long", "float", "double", "string", "any"])
SIZES = st.lists(st.sampled_from([-1, 2, 3]), min_size=1, max_size=2).map(
    lambda sizes: (-1, *sizes)
)
CONTRACTS = st.builds(
    Contract,
    columns=fields(type=TYPES, required=st.booleans(), limits=LIMITS),
    tensors=fields(type=st.sampled_from(["float32", "int64"]), shape=SIZES),
    outputs=fields(type=TYPES, required=st.booleans()),
    params=fields(type=TYPES, required=st.booleans(), default=st.integers(0, 1)),
    task=st.sampled_from(["custom", "regression"]),
    labels=st.lists(NAMES, max_size=3, unique=True).map(tuple),
)


@given(CONTRACTS)
def test_a_contract_is_the_same_as_itself_and_survives_json(contract):
    again = msgspec.json.decode(msgspec.json.encode(contract), type=Contract)

    assert compare(contract, copy.deepcopy(contract)) == []
    assert compare(contract, again) == []


@given(CONTRACTS, CONTRACTS)
def test_what_is_additive_one_way_is_breaking_the_other_way(one, other):
    there, back = level_of(compare(one, other)), level_of(compare(other, one))

    assert "breaking" in (there, back) or (there, back) == ("same", "same")


PARTS = ("columns", "tensors", "outputs", "params", "task", "labels")


@given(CONTRACTS, CONTRACTS, st.sampled_from(PARTS))
def test_additive_changes_of_one_part_break_the_other_way(one, other, part):
    changed = msgspec.structs.replace(one, **{part: getattr(other, part)})

    if level_of(compare(one, changed)) == "additive":
        assert level_of(compare(changed, one)) == "breaking"


def test_pictures_that_are_refused_break_callers():
    image = {"mode": "RGB", "height": 8, "width": 8}
    numbers, pictures = rows(tensor(3, 8, 8)), rows(tensor(3, 8, 8), image=image)

    assert level_of(compare(pictures, numbers)) == "breaking"
    assert level_of(compare(numbers, pictures)) == "additive"
    assert compare(pictures, pictures) == []
