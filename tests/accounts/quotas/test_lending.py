"""The rules of lending, one at a time; `lease_world.py` mixes them."""

import pytest

from accounts.admission.limits import LeaseGrant, LeaseRequest, Recalled
from accounts.quotas import lending
from accounts.quotas.lending import Account, Loan


def ask(units, minimum=1, *, number=1, leased=0, overdrawn=0, needed=0):
    return LeaseRequest(
        customer_id=1,
        quota="day",
        unit="rows",
        window_start=0,
        units=units,
        minimum=minimum,
        needed=needed,
        number=number,
        leased=leased,
        overdrawn=overdrawn,
    )


def test_blocks_shrink_as_the_limit_comes_near():
    lent = []
    for counted in (0, 400, 840, 990, 999):
        account = Account(counted=counted, loan=Loan())
        lent.append(lending.lend(account, ask(1000), limit=1000).units)

    assert lent == [62, 37, 10, 1, 1]


def test_blocks_are_smaller_the_more_holders_there_are():
    account = Account(counted=0, loan=Loan(), holders=4)

    assert lending.lend(account, ask(1000), limit=1000).units == 15


def test_what_calls_wait_for_is_lent_however_near_the_limit_is():
    account = Account(counted=900, loan=Loan())

    assert lending.lend(account, ask(70, needed=64), limit=1000).units == 64


def test_less_than_the_minimum_is_not_lent():
    account = Account(counted=95, loan=Loan())

    assert lending.lend(account, ask(10, minimum=6), limit=100) == LeaseGrant(0, 5)
    assert account.counted == 95


def test_an_answer_that_got_lost_is_taken_back_by_the_next_request():
    account = Account(counted=0, loan=Loan())
    lending.lend(account, ask(10, 10, number=1), limit=1000)

    lending.lend(account, ask(5, 5, number=2, leased=0), limit=1000)

    assert (account.counted, account.loan.units) == (5, 5)


def test_a_request_that_was_overtaken_changes_nothing():
    account = Account(counted=50, loan=Loan(units=50, number=3))

    granted = lending.lend(account, ask(10, 10, number=2, leased=0), limit=100)

    assert granted == LeaseGrant(0, 50)
    assert account == Account(counted=50, loan=Loan(units=50, number=3))


def test_what_was_overdrawn_is_counted_once_however_often_it_is_told():
    account = Account(counted=90, loan=Loan(units=90, number=1))
    for number in (2, 3, 4):
        told = ask(0, 0, number=number, leased=90, overdrawn=20)
        lending.lend(account, told, limit=100)

    assert (account.counted, account.loan.units, account.loan.overdrawn) == (
        110,
        110,
        20,
    )


@pytest.mark.parametrize(("seen", "freed"), [(7, 30), (8, 0)])
def test_units_that_a_later_request_has_told_of_are_not_freed_twice(seen, freed):
    account = Account(counted=100, loan=Loan(units=100, number=seen))

    assert lending.take_back(account, Recalled(units=30, number=7)) == freed
    assert account.counted == 100 - freed


def test_the_dead_give_back_what_they_have_not_spent_once():
    account = Account(counted=100, loan=Loan(units=60))

    assert lending.settle(account, spent=25) == 35
    assert lending.settle(account, spent=25) == 0
    assert (account.counted, account.loan.units) == (65, 25)
    assert lending.take_back(account, Recalled(units=5, number=9)) == 0


def test_one_that_was_taken_for_dead_goes_on_with_what_it_has():
    account = Account(counted=60, loan=Loan(units=60, number=1))
    lending.settle(account, spent=20)

    lending.lend(account, ask(0, 0, number=2, leased=60), limit=1000)

    assert (account.counted, account.loan.units) == (60, 60)


def test_a_request_is_not_looked_at_again_after_its_holder_gave_it_up():
    account = Account(counted=0, loan=Loan(number=2))

    assert lending.lend_again(account, ask(5, 5, number=1), limit=100).units == 0
    assert lending.lend_again(account, ask(5, 5, number=2), limit=100).units == 5
