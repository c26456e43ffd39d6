from hypothesis import given
from hypothesis import strategies as st

from inference.engine.loading.residency import Resident, leaving
from inference.engine.wire.messages import VersionKey


def resident(number, nbytes, *, pinned=False, used_at=0.0):
    return Resident(VersionKey("model", number), nbytes, pinned, used_at)


def test_nobody_leaves_while_there_is_room():
    assert leaving([resident(1, 50)], budget=100, needed=50) == []


def test_the_least_recently_used_leave_first_and_no_more_than_needed():
    residents = [
        resident(1, 30, used_at=3.0),
        resident(2, 30, used_at=1.0),
        resident(3, 30, used_at=2.0),
    ]

    gone = leaving(residents, budget=100, needed=60)

    assert gone == [VersionKey("model", 2), VersionKey("model", 3)]


def test_what_routes_serve_never_leaves():
    residents = [resident(1, 60, pinned=True), resident(2, 30, used_at=9.0)]

    assert leaving(residents, budget=100, needed=40) == [VersionKey("model", 2)]
    assert leaving(residents, budget=100, needed=41) is None


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.floats(0, 9)), max_size=9),
    st.integers(0, 200),
    st.integers(0, 60),
)
def test_the_rest_fits_and_is_worth_more_than_what_left(made, budget, needed):
    residents = [
        resident(number, nbytes, pinned=pinned, used_at=used_at)
        for number, (nbytes, pinned, used_at) in enumerate(made)
    ]

    gone = leaving(residents, budget=budget, needed=needed)

    pinned = sum(one.nbytes for one in residents if one.pinned)
    if gone is None:
        assert pinned + needed > budget
        return
    rest = [one for one in residents if one.key not in gone]
    assert sum(one.nbytes for one in rest) + needed <= budget
    left = [one for one in residents if one.key in gone]
    assert not any(one.pinned for one in left)
    # Without the last one leaving, it would not fit.
    if left:
        last = max(left, key=lambda one: gone.index(one.key))
        assert sum(one.nbytes for one in rest) + last.nbytes + needed > budget
        assert all(
            one.used_at >= last.used_at
            for one in rest
            if not one.pinned and one.nbytes > 0
        )
