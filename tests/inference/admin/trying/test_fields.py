import pytest

from inference.admin.trying import fields
from inference.admin.trying.fields import FieldKind
from inference.engine.signatures.signature import (
    Column,
    Image,
    Layout,
    Signature,
    TensorInput,
)
from inference.engine.wire.dtypes import DATETIME


def table(*columns):
    return Signature(layout=Layout.TABLE, columns=columns)


@pytest.mark.parametrize(
    ("column", "value", "kind", "shown"),
    [
        (Column("x", "float32"), 1.5, FieldKind.NUMBER, "1.5"),
        (Column("x", "int64"), 3, FieldKind.INTEGER, "3"),
        (Column("x", "str"), "a\nb", FieldKind.TEXT, "a\nb"),
        (Column("x", "bool"), False, FieldKind.BOOLEAN, "false"),
        (Column("x", "str", enum=("a", "b")), "b", FieldKind.CHOICE, '"b"'),
        (Column("x", "int64", enum=(1, 2)), 2, FieldKind.CHOICE, "2"),
        (Column("x", "json"), {"a": [1]}, FieldKind.JSON, '{"a": [1]}'),
        (Column("x", "float32"), None, FieldKind.NUMBER, ""),
    ],
)
def test_a_column_becomes_a_field_with_the_value_of_the_example(
    column, value, kind, shown
):
    (field,) = fields.of_row(table(column), {"x": value})

    assert (field.kind, field.value) == (kind, shown)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-11-20T10:30:00Z", "2026-11-20T10:30:00"),
        ("2026-11-20T10:30:00+02:00", "2026-11-20T08:30:00"),
        ("2026-11-20", "2026-11-20T00:00:00"),
        ("soon", ""),
    ],
)
def test_times_are_shown_in_utc(written, shown):
    (field,) = fields.of_row(table(Column("at", DATETIME)), {"at": written})

    assert (field.kind, field.value) == (FieldKind.TIME, shown)


def test_choices_keep_their_types():
    (field,) = fields.of_row(table(Column("x", "int64", enum=(1, 20))), None)

    assert field.choices == (("1", "1"), ("20", "20"))


def test_a_field_says_its_type_and_bounds():
    columns = (
        Column("a", "float64", minimum=0, maximum=5000),
        Column("b", "int8", required=False, minimum=3),
    )

    first, second = fields.of_row(table(*columns), None)

    assert first.note == "float64, 0 to 5000"
    assert (second.note, second.required) == ("int8, optional, 3 to …", False)


def test_an_example_may_be_a_list_of_values_in_the_order_of_columns():
    row = fields.of_row(table(Column("a"), Column("b"), Column("c")), [1, 2])

    assert [field.value for field in row] == ["1", "2", ""]


@pytest.mark.parametrize("example", [None, "text", 5, [], {}])
def test_without_a_fitting_example_the_fields_are_empty(example):
    (field,) = fields.of_row(table(Column("a")), example)

    assert field.value == ""


def test_tensors_are_written_as_json():
    several = Signature(
        layout=Layout.TENSORS,
        inputs=(TensorInput("ids", "int64", (-1,)), TensorInput("w", "float32", ())),
    )
    one = Signature(layout=Layout.TENSOR, shape=(2, 3))

    ids, weight = fields.of_row(several, {"ids": [1, 2]})
    (only,) = fields.of_row(one, [[1, 2, 3], [4, 5, 6]])

    assert (ids.name, ids.kind, ids.value) == ("ids", FieldKind.JSON, "[1, 2]")
    assert (ids.note, weight.note) == ("int64, any", "float32, one value")
    assert (only.name, only.value) == ("", "[[1, 2, 3], [4, 5, 6]]")
    assert only.note == "float32, 2 × 3"


def test_a_long_tensor_fills_no_form():
    one = Signature(layout=Layout.TENSOR, shape=(20_000,))

    (only,) = fields.of_row(one, [0.5] * 20_000)

    assert only.value == ""


def test_an_image_is_chosen_as_a_file():
    image = Image(mode="L", height=8, width=10)

    (field,) = fields.of_row(Signature(layout=Layout.TENSOR, image=image), None)

    assert (field.kind, field.note) == (FieldKind.IMAGE, "PNG or JPEG, made 10 × 8")


def test_a_model_of_single_texts_takes_one_text():
    (field,) = fields.of_row(Signature(layout=Layout.TENSOR, dtype="str"), "hello")

    assert (field.name, field.kind, field.value) == ("", FieldKind.TEXT, "hello")
