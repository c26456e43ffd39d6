import pytest

from inference.codecs.rows.nested import BrokenSchema, read_value

ORDER = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"type": "integer"}},
        "price": {"type": "number"},
        "paid": {"type": "boolean"},
        "note": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "file": {"type": "string", "contentEncoding": "base64"},
    },
    "required": ["items"],
}
SCORES = {"type": "object", "additionalProperties": {"type": "number"}}
FULL = {
    "items": [1, 2.0],
    "price": 3,
    "paid": False,
    "note": "",
    "at": "2026-11-20T10:30:00Z",
    "file": "aGk=",
}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (FULL, ORDER),
        ({"items": []}, ORDER),
        ({"a": 1, "b": 0.5}, SCORES),
        ([None, {"a": ["b"]}, True], {}),
        (None, {}),
    ],
)
def test_good_values_break_nothing(value, schema):
    assert read_value(value, schema) == value


def test_numbers_get_the_type_of_the_schema_and_optional_members_may_be_null():
    value = FULL | {"note": None, "paid": None}

    read = read_value(value, ORDER)

    assert read == value
    assert [type(item) for item in read["items"]] == [int, int]
    assert type(read["price"]) is float
    assert type(read_value({"a": 2**70}, SCORES)["a"]) is float


@pytest.mark.parametrize(
    ("value", "schema", "issue"),
    [
        ({}, ORDER, "must have the member items"),
        ([], ORDER, "must be an object"),
        (FULL | {"items": None}, ORDER, "at /items: must be an array"),
        ({"a": None}, SCORES, "at /*: must be of type number"),
        (FULL | {"secret": 1}, ORDER, "has a member that the signature does not name"),
        (FULL | {"items": 1}, ORDER, "at /items: must be an array"),
        (FULL | {"items": [1, "x"]}, ORDER, "at /items/1: must be of type integer"),
        (FULL | {"items": [1.5]}, ORDER, "at /items/0: must be of type integer"),
        (FULL | {"price": True}, ORDER, "at /price: must be of type number"),
        (FULL | {"price": float("inf")}, ORDER, "at /price: must be finite"),
        (FULL | {"price": 10**400}, ORDER, "at /price: must be finite"),
        (FULL | {"items": [2**70]}, ORDER, "at /items/0: must fit into 64 bits"),
        ([2**64], {}, "at /*: must be finite"),
        (FULL | {"paid": 1}, ORDER, "at /paid: must be of type boolean"),
        (FULL | {"note": 1}, ORDER, "at /note: must be of type string"),
        (FULL | {"at": "soon"}, ORDER, "at /at: must be a date and time"),
        (FULL | {"file": "?"}, ORDER, "at /file: must be bytes as base64"),
        ({"secret name": "x"}, SCORES, "at /*: must be of type number"),
        ({"a": [float("nan")]}, {}, "at /*/*: must be finite"),
    ],
)
def test_the_first_broken_place_is_named_without_its_value(value, schema, issue):
    with pytest.raises(BrokenSchema) as broken:
        read_value(value, schema)

    assert str(broken.value) == issue


def test_depth_is_bounded():
    value = []
    for _ in range(500):
        value = [value]

    with pytest.raises(BrokenSchema, match="is nested too deeply"):
        read_value(value, {})
