"""Which optional inputs a request used, as bits whose meaning is the contract's."""

import json

import pytest

from inference.codecs.decoding import InstanceDecoder
from inference.codecs.optional_inputs import optional_inputs_of
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import with_rules
from registry.rules import contracts
from registry.rules.optional_inputs import bits_of_contract


def spec(name, kind, *, required=True):
    return {"name": name, "type": kind, "required": required}


TABLE = {
    "inputs": [
        spec("age", "long"),
        spec("note", "string", required=False),
        spec("income", "double", required=False),
        spec("member", "boolean", required=False),
        spec("visits", "long", required=False),
        spec("since", "datetime", required=False),
        spec("ruled", "double"),
    ],
    "params": [
        {"name": "top", "type": "long", "default": 1, "shape": None},
        {"name": "note", "type": "string", "default": "", "shape": None},
    ],
}
TABLE_METADATA = {"rules": {"ruled": {"optional": True}}}
MATRIX = {
    "inputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}
    ]
}
MATRIX_METADATA = {
    "columns": ["a", "b", "c"],
    "rules": {"a": {"optional": True}, "c": {"optional": True}},
}


def names_used(signature, metadata, rows, *, rules=None, **members):
    described = with_rules(from_mlflow(signature, metadata), rules or {})
    body = json.dumps({"instances": rows} | members).encode()
    decoded = InstanceDecoder(described).decode_request(body)
    mask = optional_inputs_of(described).used(decoded)
    bits = bits_of_contract(contracts.contract_of(metadata, signature))
    assert mask < 2**63
    return {name for name, bit in bits.items() if mask & bit}


@pytest.mark.parametrize(
    ("row", "used"),
    [
        ({}, set()),
        ({"note": "x"}, {"note"}),
        ({"note": ""}, {"note"}),
        ({"note": None}, set()),
        ({"income": 0.0}, {"income"}),
        ({"member": False}, {"member"}),
        ({"visits": 0}, {"visits"}),
        ({"since": "2026-12-01T00:00:00Z"}, {"since"}),
        ({"ruled": 1.5, "note": "x"}, {"ruled", "note"}),
    ],
)
def test_a_column_of_a_table_counts_if_it_has_a_value(row, used):
    assert names_used(TABLE, TABLE_METADATA, [{"age": 1, **row}]) == used


def test_one_row_of_many_is_enough():
    rows = [{"age": 1}, {"age": 1, "income": 2.0}, {"age": 1}]

    assert names_used(TABLE, TABLE_METADATA, rows) == {"income"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("note", "x"),
        ("member", False),
        ("since", "2026-12-01T00:00:00Z"),
        ("income", 0.0),
        ("visits", 0),
    ],
)
def test_a_value_counts_in_whichever_row_it_is(name, value):
    lacking, having = {"age": 1}, {"age": 1, name: value}

    for rows in ([having, lacking], [lacking, having], [lacking, having, lacking]):
        assert names_used(TABLE, TABLE_METADATA, rows) == {name}


def test_a_value_of_a_tensor_counts_in_whichever_row_it_is():
    first = [[1, 2, None], [None, 2, None]]
    later = [[None, 2, None], [None, 2, 3], [None, 2, None]]

    assert names_used(MATRIX, MATRIX_METADATA, first) == {"a"}
    assert names_used(MATRIX, MATRIX_METADATA, later) == {"c"}


def test_a_parameter_is_not_a_column_of_the_same_name():
    used = names_used(TABLE, TABLE_METADATA, [{"age": 1}], parameters={"note": "x"})

    assert used == {"parameters.note"}


@pytest.mark.parametrize(
    ("row", "used"),
    [
        ({"b": 1}, set()),
        ({"a": 0, "b": 1}, {"a"}),
        ({"b": 1, "c": 2}, {"c"}),
        ([1, 2, None], {"a"}),
    ],
)
def test_columns_of_a_tensor_count_the_same(row, used):
    assert names_used(MATRIX, MATRIX_METADATA, [row]) == used


def test_rules_of_a_route_move_no_bit():
    rules = {"note": {"optional": False}}
    row = {"age": 1, "note": "x", "ruled": 1.0}

    used = names_used(TABLE, TABLE_METADATA, [row], rules=rules)

    assert used == {"note", "ruled"}


def test_the_last_bit_stands_for_all_further_inputs():
    columns = [spec(f"c{place}", "double", required=False) for place in range(100)]
    signature = {"inputs": [spec("age", "long"), *columns]}

    first = names_used(signature, {}, [{"age": 1, "c0": 1.0}])
    last = names_used(signature, {}, [{"age": 1, "c99": 1.0}])

    assert first == {"c0"}
    assert last == {f"c{place}" for place in range(62, 100)}


def test_a_version_without_optional_inputs_has_no_bits():
    described = from_mlflow({"inputs": [spec("age", "long")]}, {})

    assert optional_inputs_of(described) is None
