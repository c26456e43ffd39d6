"""Kept predictions: when they are found, and that memory is bounded."""

import numpy as np

from inference.cache import PredictionCache, digest
from inference.engine.tensors import Prediction, Tensor

KEY = (("m", 1, "a"), 0, b"x")
OTHER = (("m", 1, "a"), 0, b"y")


def prediction(value=1.0, size=1):
    return Prediction((Tensor("y", np.full((size,), value)),), 5, 6, size)


def value_of(found):
    return None if found is None else found.tensors[0].data[0]


def tensors(*values, dtype="float32", name="x"):
    return (Tensor(name, np.array(values, dtype=dtype)),)


def test_what_was_stored_is_found_until_its_time():
    cache = PredictionCache()
    cache.put(KEY, prediction(7), now_s=100)

    assert value_of(cache.get(KEY, now_s=109.9, ttl_s=10)) == 7
    assert cache.get(KEY, now_s=110, ttl_s=10) is None
    assert (cache.counts.hits, cache.counts.misses) == (1, 1)
    assert (cache.counts.entries, cache.counts.bytes) == (0, 0)


def test_a_shorter_time_holds_for_what_is_stored_already():
    cache = PredictionCache()
    cache.put(KEY, prediction(), now_s=0)

    assert cache.get(KEY, now_s=5, ttl_s=4) is None


def test_the_least_recently_used_leaves_when_there_are_too_many():
    cache = PredictionCache(max_entries=2)
    third = (("m", 2, "a"), 0, b"x")
    cache.put(KEY, prediction(), now_s=0)
    cache.put(OTHER, prediction(), now_s=0)
    cache.get(KEY, now_s=1, ttl_s=10)

    cache.put(third, prediction(), now_s=1)

    assert cache.get(KEY, now_s=1, ttl_s=10) is not None
    assert cache.get(OTHER, now_s=1, ttl_s=10) is None
    assert cache.counts.evictions == 1


def test_bytes_are_bounded():
    cache = PredictionCache(max_bytes=100_000)
    for number in range(50):
        key = (("m", number, ""), 0, b"")
        cache.put(key, prediction(size=1000), now_s=0)
        assert cache.counts.bytes <= 100_000

    assert 5 <= cache.counts.entries <= 12
    assert cache.counts.evictions == 50 - cache.counts.entries


def test_one_huge_prediction_does_not_push_out_the_others():
    cache = PredictionCache(max_bytes=100_000)
    cache.put(KEY, prediction(), now_s=0)

    cache.put(OTHER, prediction(size=10_000), now_s=0)

    assert cache.get(OTHER, now_s=0, ttl_s=10) is None
    assert cache.get(KEY, now_s=0, ttl_s=10) is not None


def test_storing_again_counts_the_bytes_once():
    cache = PredictionCache()
    cache.put(KEY, prediction(1), now_s=0)
    once = cache.counts.bytes

    cache.put(KEY, prediction(2), now_s=1)

    assert cache.counts.bytes == once
    assert value_of(cache.get(KEY, now_s=1, ttl_s=10)) == 2


def test_text_counts_with_its_characters():
    cache = PredictionCache()
    long = Prediction(
        (Tensor("y", np.array(["a" * 5000], dtype=object)),), 1, 1, batch_rows=1
    )

    cache.put(KEY, long, now_s=0)

    assert cache.counts.bytes > 5000


def test_objects_count_with_all_that_they_hold():
    cache = PredictionCache(max_bytes=10_000_000)
    words = np.empty(1, dtype=object)
    words[0] = {"words": [{"word": "x" * 1000} for _ in range(100)]}

    cache.put(KEY, Prediction((Tensor("y", words),), 5, 6, 1), now_s=0)

    assert cache.counts.bytes > 100_000


def test_what_is_kept_is_a_copy():
    frame = np.zeros(1000)
    cache = PredictionCache()
    cache.put(KEY, Prediction((Tensor("y", frame[:1]),), 1, 1, 1), now_s=0)

    frame[0] = 9

    assert value_of(cache.get(KEY, now_s=0, ttl_s=1)) == 0


def test_the_digest_tells_inputs_apart():
    inputs = [
        (tensors(1, 2), None),
        (tensors(2, 1), None),
        (tensors(1, 2, dtype="float64"), None),
        (tensors(1, 2, name="z"), None),
        ((Tensor("x", np.array([[1, 2]], dtype="float32")),), None),
        (tensors("a", "bc", dtype=object), None),
        (tensors("ab", "c", dtype=object), None),
        (tensors("1", "2", dtype=object), None),
        (tensors(1, 2, dtype=object), None),
        (tensors(1, 2), {"temperature": 0.5}),
        (tensors(1, 2), {"temperature": 0.6}),
        (tensors(1) + tensors(2), None),
    ]

    assert len({digest(*given) for given in inputs}) == len(inputs)


def test_the_digest_is_the_same_however_the_memory_is_laid_out():
    rows = np.arange(12, dtype="float32").reshape(3, 4)

    assert digest((Tensor("x", rows),), {"a": 1, "b": 2}) == digest(
        (Tensor("x", np.asfortranarray(rows)),), {"b": 2, "a": 1}
    )


def test_values_that_cannot_be_written_have_no_digest():
    assert digest(tensors(2**70, dtype=object), None) is None
