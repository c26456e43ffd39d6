import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.codecs.answers import AnswerEncoder, to_json_values
from inference.codecs.options import Options
from inference.engine.runners.pyfunc_outputs import to_tensors
from inference.engine.signatures.signature import Layout, Signature, Task
from inference.engine.wire.tensors import Tensor, object_array


def encoder(task=Task.CLASSIFICATION, *, low=None, **changes):
    signature = Signature(layout=Layout.TENSOR, task=task, shape=(1,), **changes)
    return AnswerEncoder(signature, low_confidence_below=low)


def answer(encode, *outputs, **options):
    tensors = tuple(
        Tensor(f"output{index}" if index else "output", np.asarray(output))
        for index, output in enumerate(outputs)
    )
    predictions = encode.predictions(tensors, Options(**options))
    return json.loads(msgspec.json.encode(predictions))


def float32(*rows):
    return np.array(rows, np.float32)


LABELS = ("cat", "dog", "cow")


def test_classification_names_the_best_class_with_its_score():
    assert answer(
        encoder(labels=LABELS), float32([0.1, 0.7, 0.2], [0.5, 0.3, 0.2])
    ) == [
        {"label": "dog", "score": 0.7, "low_confidence": False},
        {"label": "cat", "score": 0.5, "low_confidence": False},
    ]


def test_scores_are_as_short_as_float32_allows():
    [prediction] = answer(encoder(labels=("a", "b")), float32([0.98, 0.02]))

    assert prediction["score"] == 0.98


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 123456.79, 16777217.0])
def test_short_scores_mean_the_same_float32(value):
    given = float32(value)

    assert np.float32(to_json_values(given)[0]) == given[0]


def test_ranked_scores_come_best_first():
    [prediction] = answer(encoder(labels=LABELS), float32([0.1, 0.7, 0.2]), top_k=2)

    assert prediction["scores"] == [
        {"label": "dog", "score": 0.7},
        {"label": "cow", "score": 0.2},
    ]


def test_more_ranks_than_classes_give_all_classes():
    [prediction] = answer(encoder(labels=LABELS), float32([0.1, 0.7, 0.2]), top_k=50)

    assert len(prediction["scores"]) == 3


def test_classes_without_labels_are_told_by_index():
    assert answer(encoder(), float32([0.1, 0.9]))[0]["label"] == 1


def test_threshold_of_the_version_marks_low_confidence():
    encode = encoder(labels=LABELS, low_confidence_below=0.6)

    predictions = answer(encode, float32([0.5, 0.3, 0.2], [0.7, 0.2, 0.1]))

    assert [found["low_confidence"] for found in predictions] == [True, False]


def test_threshold_of_the_route_goes_first():
    encode = encoder(labels=LABELS, low_confidence_below=0.6, low=0.4)

    assert not answer(encode, float32([0.5, 0.3, 0.2]))[0]["low_confidence"]


def test_decision_threshold_decides_between_two_classes():
    encode = encoder(labels=("benign", "malignant"), decision_threshold=0.3)

    predictions = answer(encode, float32([0.65, 0.35], [0.75, 0.25]))

    assert [(found["label"], found["score"]) for found in predictions] == [
        ("malignant", 0.35),
        ("benign", 0.75),
    ]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_probability_is_that_of_the_second_class(shape):
    encode = encoder(labels=("no", "yes"), decision_threshold=0.7)

    predictions = answer(encode, float32(0.75, 0.6, 0.0).reshape(shape), top_k=2)

    assert [(found["label"], found["score"]) for found in predictions] == [
        ("yes", 0.75),
        ("no", 0.4),
        ("no", 1.0),
    ]
    assert (
        predictions[1]["scores"]
        == [
            {"label": "yes", "score": 0.6},
            {"label": "no", "score": 0.4},
        ]
        or predictions[1]["scores"][0]["label"] == "yes"
    )


def test_class_indexes_without_scores_become_labels():
    assert answer(encoder(labels=LABELS), np.array([2, 0])) == [
        {"label": "cow", "score": None, "low_confidence": False},
        {"label": "cat", "score": None, "low_confidence": False},
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [{"label": "a", "score": 0.9}, {"label": "b", "score": 0.1, "why": "rule 3"}],
        [{"label": 2, "score": None}, {"refused": True}],
        [0.7, None],
        [0.7, "cow", 1],
        [[0.1, 0.7, 0.2], None],
        [[0.1, 0.7, 0.2], [0.6, 0.4]],
        [[0.7], "cow"],
        [[math.nan, 0.7, 0.2], "cow"],
        [[0.2, math.inf], [0.1, 0.7, 0.2]],
        [[math.nan], "cow"],
        [{"label": "a", "score": math.nan}, "cow"],
    ],
)
@pytest.mark.parametrize("labels", [LABELS, ("no", "yes")])
def test_a_class_does_not_depend_on_what_other_rows_are_answered(rows, labels):
    encode = encoder(labels=labels, low=0.8)

    def told(*given):
        outputs = to_tensors(list(given), rows=len(given))
        return msgspec.to_builtins(encode.predictions(outputs, Options(top_k=2)))

    assert told(*rows) == [told(row)[0] for row in rows]


def test_a_label_beside_rows_of_more_members_is_one():
    encode = encoder(labels=LABELS, low=0.5)
    more = {"label": "cow", "score": 0.9, "why": "rule 3"}

    found = answer(encode, object_array([{"label": 1, "score": 0.25}, more]))

    assert found == [{"label": LABELS[1], "score": 0.25, "low_confidence": True}, more]


@pytest.mark.parametrize(
    "lost", [[math.nan, 0.7, 0.2], [math.inf], {"label": "a", "score": math.nan}]
)
def test_a_lost_score_beside_other_rows_is_told(lost):
    encode = encoder(labels=LABELS)
    outputs = to_tensors(["cow", lost], rows=2)

    predictions = encode.predictions(outputs)

    assert (predictions[1].score, predictions[1].low_confidence) == (None, True)
    assert [warned.index for warned in encode.warnings(predictions, outputs)] == [1]


def test_several_labels_of_each_row_stay_together():
    assert answer(encoder(labels=LABELS), np.array([[1, 0, 1], [0, 0, 1]])) == [
        [1, 0, 1],
        [0, 0, 1],
    ]
    assert answer(encoder(labels=LABELS), np.array([[2], [0]]))[0]["label"] == LABELS[2]


def test_many_scores_are_ranked_as_few_are():
    scores = np.random.default_rng(7).random((300, 9), np.float32)
    scores[5, 3] = np.nan
    encode = encoder(low_confidence_below=0.9)

    together = answer(encode, scores)
    one_by_one = [answer(encode, scores[index : index + 1])[0] for index in range(300)]

    assert together == one_by_one


@given(
    st.integers(2, 5),
    st.integers(1, 60),
    st.sampled_from([np.float32, np.float64, np.float16]),
    st.sampled_from([None, 0.0, 0.5, 0.9]),
    st.sampled_from([None, 0.3]),
    st.randoms(use_true_random=False),
)
def test_many_are_written_as_they_are_one_by_one(
    classes, rows, dtype, low, threshold, random
):
    # The last label is one that JSON has to escape.
    labels = (1, *(f"class {number}" for number in range(2, classes)), '"é\n')
    scores = np.array(
        [[round(random.random(), 3) for _ in range(classes)] for _ in range(rows)],
        dtype,
    )
    encode = encoder(labels=labels, low=low, decision_threshold=threshold)

    written = encode.many_as_json((Tensor("output", scores),))

    if rows * classes <= 64 or (threshold is not None and classes == 2):
        assert written is None
    else:
        assert json.loads(written) == answer(encode, scores)


@pytest.mark.parametrize(
    ("scores", "options"),
    [
        (np.full((40, 3), np.nan, np.float32), {}),
        (np.array([[0.1, -np.inf, 0.9]] * 40, np.float32), {}),
        (np.ones((40, 3), np.float32), {"top_k": 2}),
        (np.ones((40, 4), np.float32), {}),
        (np.ones((40, 3), np.int64), {}),
        (np.ones((40, 3, 2), np.float32), {}),
        (np.ones((120, 1), np.float32), {}),
    ],
)
def test_what_is_no_plain_best_class_is_left_to_the_other_way(scores, options):
    encode = encoder(labels=LABELS)

    assert encode.many_as_json((Tensor("output", scores),), Options(**options)) is None


def test_non_finite_scores_leave_the_class_unknown():
    encode = encoder(labels=LABELS)
    scores = float32([np.nan, 0.7, 0.2], [np.inf, 0.1, 0.2], [0.5, 0.3, 0.2])

    predictions = encode.predictions((Tensor("output", scores),), Options(top_k=3))

    assert [found.label for found in predictions] == [None, None, "cat"]
    assert [found.score for found in predictions[0].scores] == [0.7, 0.2, None]
    assert [found.index for found in encode.warnings(predictions)] == [0, 1]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_regression_gives_numbers(shape):
    output = float32(1.5, -2).reshape(shape)

    assert answer(encoder(Task.REGRESSION), output) == [1.5, -2.0]


def test_regression_warns_of_numbers_that_are_none():
    encode = encoder(Task.REGRESSION)

    predictions = encode.predictions((Tensor("output", float32(1, np.inf)),))

    assert predictions == [1.0, None]
    assert [found.index for found in encode.warnings(predictions)] == [1]


def test_embedding_gives_arrays():
    assert answer(encoder(Task.EMBEDDING), float32([1, 2], [3, 4])) == [[1, 2], [3, 4]]


def test_text_gives_strings():
    output = np.array(["bonjour", "hola"], object)

    assert answer(encoder(Task.TEXT), output) == ["bonjour", "hola"]


def test_several_outputs_become_members():
    assert answer(encoder(Task.CUSTOM), float32([1], [2]), float32([3, 4], [5, 6])) == [
        {"output": 1.0, "output1": [3, 4]},
        {"output": 2.0, "output1": [5, 6]},
    ]


def test_outputs_that_are_not_contiguous_are_read_right():
    output = np.arange(6, dtype=">f4").reshape(3, 2).T

    assert answer(encoder(Task.EMBEDDING), output) == [[0, 2, 4], [1, 3, 5]]


def test_times_are_iso_8601_and_missing_ones_null():
    encode = AnswerEncoder(Signature(layout=Layout.TABLE))
    times = np.array(["2026-01-02T03:04:05", "NaT"], "datetime64[ns]")
    outputs = (Tensor("output", times),)

    predictions = encode.predictions(outputs)

    assert predictions == ["2026-01-02T03:04:05.000000", None]
    assert encode.warnings(predictions, outputs) == ()


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        (None, False),
        ({"a": None}, False),
        ({"a": [1.0, math.nan]}, True),
        (math.inf, True),
        ("nan", False),
    ],
)
def test_a_models_own_null_is_no_lost_number(value, warned):
    encode = AnswerEncoder(Signature(layout=Layout.TABLE))
    outputs = (Tensor("output", object_array([value])),)

    warnings = encode.warnings(encode.predictions(outputs), outputs)

    assert bool(warnings) is warned


def test_a_lost_number_within_an_object_is_told():
    encode = AnswerEncoder(Signature(layout=Layout.TABLE))
    outputs = to_tensors([{"x": 1.0}, {"x": math.nan}, {"x": None}], rows=3)

    predictions = encode.predictions(outputs)

    assert json.loads(msgspec.json.encode(predictions))[1:] == [{"x": None}] * 2
    assert [warned.index for warned in encode.warnings(predictions, outputs)] == [1]


def test_a_lost_number_beside_text_is_told():
    encode = AnswerEncoder(Signature(layout=Layout.TABLE))
    outputs = (
        Tensor("text", object_array([None, "a"])),
        Tensor("score", np.array([1.0, math.nan])),
    )

    warnings = encode.warnings(encode.predictions(outputs), outputs)

    assert [warned.index for warned in warnings] == [1]
