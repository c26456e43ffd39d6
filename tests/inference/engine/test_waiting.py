import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.tensors import Tensor
from inference.engine.waiting import Entry, QueueLimits, Room, VersionQueue


class Nobody:
    def answered(self, entry, answer, start, queue_us):
        raise AssertionError

    def failed(self, entry, error):
        raise AssertionError


def entry(
    rows=1,
    *,
    deadline=100.0,
    max_batch_rows=0,
    dtype=np.float32,
    nbytes=None,
    job=False,
):
    data = np.zeros((rows, 2), dtype)
    return Entry(
        Nobody(),
        0,
        (Tensor("input", data),),
        nbytes=data.nbytes if nbytes is None else nbytes,
        arrived_at=0.0,
        deadline=deadline,
        max_batch_rows=max_batch_rows,
        job=job,
    )


def queue(*entries, max_rows=100, max_bytes=10_000, batch_rows=10, batch_bytes=1000):
    limits = QueueLimits(
        max_rows=max_rows,
        max_bytes=max_bytes,
        max_batch_rows=batch_rows,
        max_batch_bytes=batch_bytes,
    )
    made = VersionQueue(limits, Room(100_000, 100_000_000))
    for one in entries:
        made.append(one)
    return made


def test_all_that_fit_make_one_batch_in_order():
    first, second, third = entry(4), entry(6), entry(1)
    waiting = queue(first, second, third)

    assert waiting.take(0.0) == ([first, second], [])
    assert waiting.take(0.0) == ([third], [])
    assert waiting.take(0.0) == ([], [])


def test_requests_of_another_dtype_wait_for_a_batch_of_their_own():
    first, other, last = entry(), entry(dtype=np.float64), entry()
    waiting = queue(first, other, last)

    assert waiting.take(0.0)[0] == [first, last]
    assert waiting.take(0.0)[0] == [other]


def test_a_caller_may_ask_for_smaller_batches():
    first, small, last = entry(2), entry(2, max_batch_rows=3), entry(1)
    waiting = queue(first, small, last)

    assert waiting.take(0.0)[0] == [first]
    assert waiting.take(0.0)[0] == [small, last]


def test_a_request_larger_than_a_batch_goes_alone():
    large, small = entry(25), entry()
    waiting = queue(large, small)

    assert waiting.take(0.0)[0] == [large]
    assert waiting.take(0.0)[0] == [small]


def test_a_batch_is_bounded_in_bytes_too():
    first, second = entry(nbytes=600), entry(nbytes=600)
    waiting = queue(first, second)

    assert waiting.take(0.0)[0] == [first]


def test_who_left_or_is_late_is_in_no_batch():
    left, late, live = entry(), entry(deadline=5.0), entry()
    waiting = queue(left, late, live)
    waiting.leave(left)

    assert waiting.take(5.0) == ([live], [late])


def test_there_is_no_room_beyond_the_bounds():
    waiting = queue(entry(90))

    assert waiting.has_room(entry(10))
    assert not waiting.has_room(entry(11))
    assert not waiting.has_room(entry(1, nbytes=9_800))


def test_an_empty_queue_takes_one_request_of_any_rows():
    assert queue().has_room(entry(500))


def test_dead_entries_give_their_room_back():
    late, left = entry(60, deadline=1.0), entry(40)
    waiting = queue(late, left)

    waiting.leave(left)
    assert waiting.rows == 60
    assert waiting.drop_late(1.0) == [late]
    assert (waiting.rows, waiting.nbytes, len(waiting)) == (0, 0, 0)


def test_who_left_holds_no_memory():
    waiting = queue(entry(), max_rows=10_000)
    for _ in range(1000):
        left = entry()
        waiting.append(left)
        waiting.leave(left)
        assert left.tensors == ()

    assert len(waiting) == 1
    assert len(waiting.take(0.0)[0]) == 1


def test_the_whole_engine_has_bounds_too():
    room = Room(max_rows=100, max_bytes=10_000)
    limits = QueueLimits(
        max_rows=100, max_bytes=10_000, max_batch_rows=10, max_batch_bytes=1000
    )
    first, second = VersionQueue(limits, room), VersionQueue(limits, room)

    first.append(entry(60, nbytes=0))

    assert room.has(entry(40, nbytes=0))
    assert not room.has(entry(41, nbytes=0))
    assert not room.has(entry(1, nbytes=10_001))
    second.append(entry(40, nbytes=0))
    first.take(0.0)
    assert room.rows == 40


def test_jobs_take_half_of_the_engine_at_most():
    room = Room(max_rows=100, max_bytes=10_000)
    limits = QueueLimits(
        max_rows=100, max_bytes=10_000, max_batch_rows=10, max_batch_bytes=1000
    )
    VersionQueue(limits, room).append(entry(40, nbytes=0))

    assert room.has(entry(10, nbytes=0, job=True))
    assert not room.has(entry(11, nbytes=0, job=True))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 30),
            st.sampled_from([np.float32, np.float64]),
            st.integers(0, 12),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_every_entry_leaves_exactly_once_and_batches_keep_their_bounds(made):
    entries = []
    for rows, dtype, cap, gone in made:
        entries.append(entry(rows, dtype=dtype, max_batch_rows=cap))
        entries[-1].gone = gone
    waiting = queue(*entries, max_rows=10_000)
    for one in entries:
        if one.gone:
            waiting.leave(one)

    taken = []
    while len(waiting):
        batch, late = waiting.take(0.0)
        assert not late
        assert len({one.layout for one in batch}) <= 1
        caps = [10, *(one.max_batch_rows for one in batch if one.max_batch_rows)]
        assert len(batch) <= 1 or sum(one.rows for one in batch) <= min(caps)
        taken += batch

    assert sorted(map(id, taken)) == sorted(id(one) for one in entries if not one.gone)
    assert (waiting.rows, waiting.nbytes) == (0, 0)
