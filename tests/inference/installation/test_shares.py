import pytest

from inference.installation.shares import FairQueue, Shares


def take_all(shares, owner):
    count = 0
    while shares.take(owner):
        count += 1
    return count


@pytest.mark.parametrize(("most", "half"), [(1, 1), (2, 1), (3, 2), (16, 8), (64, 32)])
def test_one_owner_gets_half(most, half):
    assert take_all(Shares(most), "flood") == half


def test_an_owner_that_holds_nothing_finds_room_beside_those_that_take_all():
    shares = Shares(16)

    flooding = [take_all(shares, owner) for owner in range(3)]

    assert flooding == [8, 4, 2]
    assert shares.take("once")


def test_nobody_gets_more_than_there_is():
    shares = Shares(4)

    assert sum(shares.take(owner) for owner in range(10)) == 4
    assert shares.used == 4


def test_what_is_given_back_can_be_taken_again():
    shares = Shares(2)
    assert shares.take("a")
    assert not shares.take("a")

    shares.give_back("a")

    assert shares.take("a")
    assert (shares.used, shares.held("a"), shares.held("b")) == (1, 1, 0)


def test_owners_take_turns():
    queue = FairQueue(10)
    for item in ("a1", "a2", "a3"):
        assert queue.put("a", item)
    for item in ("b1", "b2"):
        assert queue.put("b", item)

    assert [queue.take() for _ in range(6)] == ["a1", "b1", "a2", "b2", "a3", None]
    assert len(queue) == 0


def test_an_item_that_is_removed_makes_room():
    queue = FairQueue(2)
    assert queue.put("a", "a1")
    assert not queue.put("a", "a2")

    queue.remove("a", "a1")
    queue.remove("a", "a1")

    assert len(queue) == 0
    assert queue.put("a", "a2")
    assert queue.take() == "a2"


def test_an_owner_waits_with_no_more_than_one_may():
    queue = FairQueue(100, most_of_one=2)

    assert [queue.put("a", number) for number in range(3)] == [True, True, False]
    assert queue.put("b", 0)
    assert (queue.shares.used, queue.shares.refused) == (3, 1)


def test_the_turn_of_an_owner_that_may_not_is_the_next_ones():
    queue = FairQueue(10)
    for owner in ("a", "a", "b"):
        queue.put(owner, owner)

    assert queue.take(lambda owner: owner != "a") == "b"
    assert queue.take(lambda owner: owner != "a") is None
    assert [queue.take(), queue.take()] == ["a", "a"]
