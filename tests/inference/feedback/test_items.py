import pytest

from inference.errors.api_error import ApiError
from inference.feedback.items import Item, read, score_of


@pytest.mark.parametrize(
    ("saying", "said"),
    [
        ({"score": 0.25}, {"score": 0.25}),
        ({"score": 1}, {"score": 1.0}),
        ({"rating": "up"}, {"score": 1.0}),
        ({"rating": "down"}, {"score": 0.0}),
        # A score says more than a rating.
        ({"rating": "up", "score": 0.8}, {"score": 0.8}),
        ({"value": -12.5}, {"value": -12.5}),
        ({"label": "a", "prediction": "a"}, {"right": 1.0}),
        ({"label": "a", "prediction": "b"}, {"right": 0.0}),
        ({"label": True, "prediction": False}, {"right": 0.0}),
        ({"label": 10, "prediction": 12.5}, {"error": 2.5}),
        (
            {"label": 3.0, "prediction": 3, "value": 1, "score": 0},
            {"error": 0.0, "value": 1.0, "score": 0.0},
        ),
    ],
)
def test_what_is_said_becomes_numbers(saying, said):
    assert read({"request_id": "r", **saying}) == Item("r", 0, said)


@pytest.mark.parametrize(
    ("saying", "code", "words"),
    [
        ({}, "INVALID_INPUT", "send one of `label`, `value`, `rating`, `score`"),
        ({"score": "0.5"}, "INVALID_INPUT", "`score` must be a number from 0 to 1"),
        ({"score": True}, "INVALID_INPUT", "`score` must be a number from 0 to 1"),
        ({"score": None}, "INVALID_INPUT", "`score` must be a number from 0 to 1"),
        ({"score": 1.01}, "UNPROCESSABLE", "`score` must be from 0 to 1"),
        ({"score": float("inf")}, "INVALID_INPUT", "`score` must be a number"),
        ({"score": float("nan")}, "INVALID_INPUT", "`score` must be a number"),
        ({"value": 10**400}, "INVALID_INPUT", "`value` must be a number from -1e+100"),
        ({"value": [1]}, "INVALID_INPUT", "`value` must be a number"),
        ({"rating": "meh"}, "INVALID_INPUT", "`rating` must be `up` or `down`"),
        ({"rating": ["up"]}, "INVALID_INPUT", "`rating` must be `up` or `down`"),
        ({"label": "a"}, "INVALID_INPUT", "`prediction` is required beside `label`"),
        ({"prediction": "a", "score": 1}, "INVALID_INPUT", "only beside `label`"),
        ({"label": "a", "prediction": 1}, "INVALID_INPUT", "the same type as `label`"),
        ({"label": "a" * 201, "prediction": "a"}, "INVALID_INPUT", "at most 200"),
        ({"label": None, "prediction": "a"}, "INVALID_INPUT", "`label` must be a text"),
        ({"score": 1, "index": -1}, "UNPROCESSABLE", "`index` is not the position"),
        ({"score": 1, "index": 2**40}, "UNPROCESSABLE", "`index` is not the position"),
        ({"score": 1, "index": 1.0}, "INVALID_INPUT", "`index` must be a whole"),
        ({"score": 1, "index": "0"}, "INVALID_INPUT", "`index` must be a whole"),
        (
            {"score": 1, "index": True},
            "INVALID_INPUT",
            "`index` must be a whole",
        ),
        (
            {"score": 1, "request_id": ""},
            "INVALID_INPUT",
            "`request_id` must be",
        ),
        ({"score": 1, "request_id": "a b"}, "INVALID_INPUT", "letters, digits and any"),
        ({"score": 1, "request_id": "é"}, "INVALID_INPUT", "letters, digits and any"),
        ({"score": 1, "request_id": "r\n"}, "INVALID_INPUT", "letters, digits and any"),
        ({"score": 1, "request_id": "r" * 129}, "INVALID_INPUT", "1 to 128 letters"),
        ({"score": 1, "request_id": 5}, "INVALID_INPUT", "`request_id` must be"),
        ({"score": 1, "stars": 5}, "INVALID_INPUT", "`stars` is not known here"),
    ],
)
def test_what_is_wrong_is_said_in_words(saying, code, words):
    with pytest.raises(ApiError) as refused:
        read({"request_id": "r", **saying})

    assert refused.value.code == code
    assert words in refused.value.message


@pytest.mark.parametrize("value", [None, "r", 5, ["r"]])
def test_an_item_is_an_object(value):
    with pytest.raises(ApiError, match="must be an object"):
        read(value)


def test_a_score_says_more_than_whether_a_label_was_right():
    assert score_of({"score": 0.5, "right": 1.0}) == 0.5
    assert score_of({"right": 1.0}) == 1.0
    assert score_of({"error": 0.2, "value": 3.0}) is None
