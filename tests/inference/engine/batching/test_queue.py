import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.batching.entry import Entry
from inference.engine.batching.queue import (
    QueueLimits,
    QueueRefusal,
    QueueRoom,
    VersionQueue,
)
from inference.engine.wire.tensors import Tensor


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
    customer_id=0,
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
        customer_id=customer_id,
    )


def queue(*entries, max_rows=100, max_bytes=10_000, batch_rows=10, batch_bytes=1000):
    limits = QueueLimits(
        max_rows=max_rows,
        max_bytes=max_bytes,
        max_batch_rows=batch_rows,
        max_batch_bytes=batch_bytes,
    )
    made = VersionQueue(limits, QueueRoom(100_000, 100_000_000))
    for one in entries:
        made.append(one)
    return made


def refusal(waiting, one):
    return waiting.refusal(one, most_rows=waiting.limits.max_rows)


def fill(waiting, customer_id, **fields):
    """Queue as much as a customer may; return the rows."""
    rows = 0
    while refusal(waiting, one := entry(customer_id=customer_id, **fields)) is None:
        waiting.append(one)
        rows += one.rows
    return rows


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


def test_a_request_larger_than_a_batch_leaves_in_parts():
    large, small = entry(25), entry()
    waiting = queue(large, small)

    taken = [waiting.take(0.0)[0] for _ in range(3)]

    assert [[one.rows for one in batch] for batch in taken] == [[10], [10], [5, 1]]
    assert [batch[0].start for batch in taken] == [0, 10, 20]
    assert {batch[0].whole for batch in taken} == {large}
    assert taken[2][1] is small
    assert (waiting.rows, waiting.nbytes, len(waiting)) == (0, 0, 0)


def test_what_is_left_of_a_request_counts_and_may_leave():
    large = entry(25)
    waiting = queue(large)
    waiting.take(0.0, 4)

    assert (waiting.rows, waiting.held(0).rows) == (21, 21)
    assert waiting.nbytes == large.nbytes
    waiting.leave(large)
    assert (waiting.rows, waiting.nbytes, len(waiting)) == (0, 0, 0)


def test_the_rest_of_a_late_request_is_not_taken():
    large = entry(25, deadline=5.0)
    waiting = queue(large)
    waiting.take(0.0)

    assert waiting.take(6.0) == ([], [large])
    assert (waiting.rows, waiting.nbytes) == (0, 0)


def test_who_comes_during_a_large_request_does_not_wait_for_all_of_it():
    large, small = entry(100, customer_id=1), entry(2, customer_id=2)
    waiting = queue(large)
    waiting.take(0.0)

    waiting.append(small)

    assert waiting.take(0.0)[0] == [small]
    rest = [one.rows for _ in range(9) for one in waiting.take(0.0)[0]]
    assert rest == [10] * 9


def test_without_company_each_request_is_a_batch_whole():
    large, small = entry(25), entry()
    waiting = queue(large, small)

    assert waiting.take(0.0, 4, joins=False)[0] == [large]
    assert waiting.take(0.0, 4, joins=False)[0] == [small]
    assert waiting.rows == 0


def test_halves_of_a_batch_that_failed_run_first_without_who_left_or_is_late():
    failed = [entry(), entry(), entry(), entry(deadline=5.0)]
    waiting = queue(entry())
    failed[0].gone = True

    waiting.put_back_halved(failed)

    assert len(waiting) == 3
    assert waiting.take(6.0) == ([failed[1]], [])
    assert waiting.take(6.0) == ([failed[2]], [failed[3]])


def test_a_batch_is_bounded_in_bytes_too():
    first, second = entry(nbytes=600), entry(nbytes=600)
    waiting = queue(first, second)

    assert waiting.take(0.0)[0] == [first]


def test_who_left_or_is_late_is_in_no_batch():
    left, late, live = entry(), entry(deadline=5.0), entry()
    waiting = queue(left, late, live)
    waiting.leave(left)

    assert waiting.take(5.0) == ([live], [late])


def test_a_customer_gets_half_of_the_rows_and_the_next_what_then_is_half():
    waiting = queue()

    assert [fill(waiting, customer) for customer in (1, 2, 3)] == [50, 25, 13]
    assert refusal(waiting, entry(customer_id=4)) is None
    assert refusal(waiting, entry(customer_id=1)) == QueueRefusal("queue_rows", True)


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_requests_of_several_rows_get_no_more(size):
    waiting = queue()

    assert fill(waiting, 1, rows=size) <= 50
    assert refusal(waiting, entry(size, customer_id=2)) is None


def test_a_customer_gets_half_of_the_bytes():
    waiting = queue()

    assert fill(waiting, 1, nbytes=1000) == 5
    assert refusal(waiting, entry(nbytes=1000, customer_id=1)) == QueueRefusal(
        "queue_bytes", True
    )
    assert refusal(waiting, entry(nbytes=4000, customer_id=2)) is None


def test_where_all_is_taken_it_is_nobodys_own_limit():
    waiting = queue(*[entry(customer_id=customer) for customer in range(100)])

    assert refusal(waiting, entry(customer_id=100)) == QueueRefusal("queue_rows")
    assert refusal(waiting, entry(customer_id=1)) == QueueRefusal("queue_rows")


def test_one_request_may_be_larger_than_a_share_and_others_find_room_beside_it():
    waiting = queue()
    large = entry(500, nbytes=9_000, customer_id=1)

    assert refusal(waiting, large) is None
    waiting.append(large)

    assert refusal(waiting, entry(customer_id=1)) == QueueRefusal("queue_rows", True)
    assert fill(waiting, 2) == 25
    another = entry(500, customer_id=3)
    assert refusal(waiting, another) is None
    waiting.append(another)
    assert refusal(waiting, entry(customer_id=4)) is None
    assert (waiting.rows, waiting.nbytes) == (1025, 9000 + 525 * 8)

    while len(waiting):
        waiting.take(0.0)
    # All room is free again.
    assert fill(waiting, 1) == 50


def test_no_request_has_more_bytes_than_may_wait():
    assert refusal(queue(), entry(nbytes=10_001)) == QueueRefusal("queue_bytes")


def test_who_asks_once_is_in_the_next_batch_beside_one_who_floods():
    flood = [entry(customer_id=1) for _ in range(50)]
    once = entry(customer_id=2)
    waiting = queue(*flood, once)

    batch, _ = waiting.take(0.0)

    assert once in batch
    assert [one for one in batch if one is not once] == flood[:9]


def test_customers_get_the_same_rows_however_large_their_requests_are():
    waiting = queue(
        *[entry(8, customer_id=1) for _ in range(20)],
        *[entry(1, customer_id=2) for _ in range(100)],
    )
    rows = {1: 0, 2: 0}

    while min(rows.values()) < 90:
        for one in waiting.take(0.0)[0]:
            rows[one.customer_id] += one.rows
        assert abs(rows[1] - rows[2]) <= 10


def test_a_customer_is_served_in_order():
    mine = [entry(rows, customer_id=1) for rows in (3, 1, 2, 1, 5)]
    waiting = queue(entry(4, customer_id=2), *mine, entry(1, customer_id=3))

    taken = []
    while len(waiting):
        taken += waiting.take(0.0)[0]

    assert [one for one in taken if one.customer_id == 1] == mine


def test_rows_that_were_given_up_cost_their_customer_no_turn():
    left = [entry(customer_id=1) for _ in range(40)]
    others = [entry(customer_id=2) for _ in range(30)]
    waiting = queue(*left, *others)
    for one in left:
        waiting.leave(one)
    back = entry(customer_id=1)
    waiting.append(back)

    assert back in waiting.take(0.0)[0]


def test_rows_before_are_those_that_have_their_turn_first():
    waiting = queue(
        *[entry(customer_id=1) for _ in range(40)],
        *[entry(customer_id=2) for _ in range(3)],
    )

    assert waiting.rows_before(entry(customer_id=1)) == 43
    assert waiting.rows_before(entry(customer_id=2)) == 3 + 4
    assert waiting.rows_before(entry(customer_id=3)) == 1 + 1


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
    room = QueueRoom(max_rows=100, max_bytes=10_000)
    limits = QueueLimits(
        max_rows=100, max_bytes=10_000, max_batch_rows=10, max_batch_bytes=1000
    )
    first, second = VersionQueue(limits, room), VersionQueue(limits, room)

    first.append(entry(60, nbytes=0, customer_id=1))

    assert room.refusal(entry(40, nbytes=0, customer_id=2)) is None
    assert room.refusal(entry(41, nbytes=0, customer_id=2)) == QueueRefusal(
        "engine_room"
    )
    assert room.refusal(entry(1, nbytes=10_001)) == QueueRefusal("engine_room")
    second.append(entry(40, nbytes=0, customer_id=2))
    while first.rows:
        first.take(0.0)
    assert room.rows == 40


def test_jobs_take_half_of_the_engine_at_most():
    room = QueueRoom(max_rows=100, max_bytes=10_000)
    limits = QueueLimits(
        max_rows=100, max_bytes=10_000, max_batch_rows=10, max_batch_bytes=1000
    )
    waiting = VersionQueue(limits, room)
    waiting.append(entry(40, nbytes=0))

    job = {"nbytes": 0, "job": True, "customer_id": 1}
    assert room.refusal(entry(10, **job)) is None
    assert room.refusal(entry(11, **job)) == QueueRefusal("engine_room")


def test_a_customer_gets_half_of_the_engine_over_all_its_versions():
    room = QueueRoom(max_rows=400, max_bytes=100_000)
    limits = QueueLimits(
        max_rows=100, max_bytes=100_000, max_batch_rows=10, max_batch_bytes=1000
    )
    queues = [VersionQueue(limits, room) for _ in range(10)]

    def flood(customer_id, **fields):
        count = 0
        for waiting in queues:
            while True:
                one = entry(customer_id=customer_id, **fields)
                if refusal(waiting, one) or (refused := room.refusal(one)):
                    break
                waiting.append(one)
                count += 1
        return count, refused

    assert flood(1) == (200, QueueRefusal("engine_room", of_customer=True))
    assert flood(2) == (100, QueueRefusal("engine_room", of_customer=True))
    assert room.refusal(entry(customer_id=3)) is None


@given(
    st.lists(
        st.tuples(
            st.integers(1, 30),
            st.sampled_from([np.float32, np.float64]),
            st.integers(0, 12),
            st.booleans(),
            st.integers(0, 3),
        ),
        max_size=30,
    ),
    st.integers(0, 3),
)
def test_every_entry_leaves_exactly_once_and_batches_keep_their_bounds(made, early):
    entries = []
    waiting = queue(max_rows=10_000)
    taken = []
    for rows, dtype, cap, gone, customer_id in made:
        one = entry(rows, dtype=dtype, max_batch_rows=cap, customer_id=customer_id)
        one.gone = gone
        entries.append(one)
        waiting.append(one)
        if early == customer_id:
            taken += waiting.take(0.0)[0]
    for one in entries:
        if one.gone and one.queue is waiting:
            waiting.leave(one)
    held = [waiting.held(customer_id) for customer_id in range(4)]
    assert sum(one.rows for one in held) == waiting.rows
    assert sum(one.nbytes for one in held) == waiting.nbytes

    while len(waiting):
        batch, late = waiting.take(0.0)
        assert not late
        assert len({one.layout for one in batch}) <= 1
        caps = [10, *(one.max_batch_rows for one in batch if one.max_batch_rows)]
        assert sum(one.rows for one in batch) <= min(caps)
        taken += batch

    rows = dict.fromkeys(entries, 0)
    for one in taken:
        whole = one.whole or one
        assert one is whole or one.start == rows[whole]
        rows[whole] += one.rows
    for one in entries:
        assert rows[one] == one.rows or (one.gone and rows[one] == one.rows - one.left)
    assert (waiting.rows, waiting.nbytes) == (0, 0)
    assert all(waiting.held(customer_id).rows == 0 for customer_id in range(4))


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 300), st.booleans()), max_size=120
    )
)
def test_whatever_others_send_a_newcomer_finds_room_and_is_soon_served(made):
    waiting = queue(max_rows=1000, max_bytes=10**9, batch_bytes=10**9)
    for customer_id, rows, takes in made:
        one = entry(rows, customer_id=customer_id)
        if refusal(waiting, one) is None:
            waiting.append(one)
        if takes:
            waiting.take(0.0)

    once = entry(customer_id=5)
    assert refusal(waiting, once) is None
    waiting.append(once)
    # Each other customer is served one entry that was due already, and one row more.
    before = {}
    while once not in (batch := waiting.take(0.0)[0]):
        for one in batch:
            served = before.setdefault(one.customer_id, {})
            whole = one.whole or one
            served[whole] = served.get(whole, 0) + one.rows
    for served in before.values():
        assert sum(list(served.values())[1:]) <= 1
