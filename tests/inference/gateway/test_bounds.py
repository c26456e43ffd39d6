"""Bounds on what waits in a gateway, and the share of each owner."""

import asyncio

import pytest

from inference.errors.api_error import ApiError
from inference.gateway.bounds import Bytes, UploadSlots
from inference.gateway.http1.asgi import ClientLeft
from inference.gateway.owners import customer, stranger
from tests.inference.gateway.test_app import on_loop, turns

ONE, OTHER, CUSTOMER = stranger("10.0.0.1"), stranger("10.0.0.2"), customer(7)


def test_a_client_has_a_quarter():
    held = Bytes(1000)
    held.take(CUSTOMER, 200)
    held.take(CUSTOMER, 50)

    with pytest.raises(ApiError):
        held.take(CUSTOMER, 1)
    held.take(customer(8), 250)
    held.give_back(CUSTOMER, 250)
    held.take(CUSTOMER, 250)

    assert (held.used, held.refused) == (500, 1)


def test_one_large_thing_may_take_what_is_free():
    held = Bytes(1000)
    held.take(CUSTOMER, 900)

    held.take(CUSTOMER, 50, already=900)

    with pytest.raises(ApiError):
        held.take(CUSTOMER, 1)
    with pytest.raises(ApiError):
        held.take(customer(8), 51)


def test_strangers_leave_half_to_customers():
    held = Bytes(3200)
    for number in range(16):
        held.take(stranger(f"10.0.0.{number}"), 100)

    with pytest.raises(ApiError):
        held.take(stranger("10.0.0.99"), 1)
    held.take(CUSTOMER, 800)


def test_an_address_has_less_than_a_customer():
    held = Bytes(3200)
    held.take(ONE, 100)

    with pytest.raises(ApiError):
        held.take(ONE, 1)
    held.take(OTHER, 100)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::2", "2001:db8::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("not:an:address", "unknown"),
    ],
)
def test_a_stranger_is_one_household(address, name):
    assert stranger(address).name == name


class Site:
    """Requests under way, each until the test ends it."""

    def __init__(self, at_once, **bounds):
        self.turns = UploadSlots(at_once, **bounds)
        self.begun = []
        self.ended = []
        self.tasks = []

    def ask(self, client, *, left=False, timeout_s=60):
        end = asyncio.Event()

        async def run():
            async with self.turns.turn(
                client, timeout_s=timeout_s, has_left=lambda: left
            ):
                self.begun.append(client.name)
                self.ended.append(end)
                await end.wait()

        self.tasks.append(asyncio.create_task(run()))

    async def end_all(self):
        while not all(task.done() for task in self.tasks):
            for end in self.ended:
                end.set()
            await turns(2)
        return [task.exception() for task in self.tasks]


@on_loop
async def test_a_client_with_many_requests_waits_for_itself():
    site = Site(8)
    for _ in range(10):
        site.ask(ONE)
    await turns()
    before = list(site.begun)
    for _ in range(5):
        site.ask(CUSTOMER)
    site.ask(OTHER)
    await turns()

    # An address has a quarter of the threads, a customer half.
    assert before == [ONE.name] * 2
    assert site.begun == [ONE.name] * 2 + [CUSTOMER.name] * 4 + [OTHER.name]
    assert await site.end_all() == [None] * 16
    assert len(site.begun) == 16


@on_loop
async def test_clients_that_wait_take_turns():
    site = Site(1)
    for client in (ONE, ONE, ONE, OTHER, CUSTOMER):
        site.ask(client)
    await turns()

    await site.end_all()

    assert site.begun == [ONE.name, ONE.name, OTHER.name, CUSTOMER.name, ONE.name]


@on_loop
async def test_too_many_waiting_requests_are_refused():
    site = Site(2, most_waiting=3, most_of_one=2)
    for _ in range(4):
        site.ask(ONE)
    site.ask(CUSTOMER)
    site.ask(CUSTOMER)
    site.ask(OTHER)
    await turns()

    outcomes = [failure and failure.status for failure in await site.end_all()]

    # The fourth is one too many for its owner, the last one for the queue.
    assert outcomes == [None, None, None, 503, None, None, 503]
    assert site.turns.refused == 2
    assert site.turns.used == 0


@on_loop
async def test_a_request_waits_for_its_time_only():
    site = Site(1)
    site.ask(ONE)
    await turns()
    site.ask(OTHER, timeout_s=0)
    await asyncio.wait(site.tasks[1:])

    outcomes = [failure and failure.status for failure in await site.end_all()]

    assert outcomes == [None, 503]
    assert site.turns.used == 0


@on_loop
async def test_the_turn_of_who_has_left_is_the_next_ones():
    site = Site(1)
    site.ask(ONE)
    site.ask(OTHER, left=True)
    site.ask(CUSTOMER)
    await turns()

    outcomes = await site.end_all()

    assert isinstance(outcomes[1], ClientLeft)
    assert site.begun == [ONE.name, CUSTOMER.name]


@on_loop
async def test_a_request_that_is_given_up_keeps_no_thread():
    site = Site(1)
    site.ask(ONE)
    site.ask(OTHER)
    await turns()
    for task in site.tasks:
        task.cancel()
    await asyncio.wait(site.tasks)

    site.ask(CUSTOMER)
    await turns()

    assert site.begun == [ONE.name, CUSTOMER.name]
    assert site.turns.used == 0
    site.tasks = site.tasks[2:]
    await site.end_all()


@on_loop
async def test_a_turn_that_comes_as_its_request_is_given_up_is_passed_on():
    site = Site(1)
    for client in (ONE, OTHER, CUSTOMER):
        site.ask(client)
    await turns()
    first, given_up, last = site.tasks

    site.ended[0].set()
    while not first.done():
        await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait((given_up,))
    await turns()

    assert site.begun[-1] == CUSTOMER.name
    site.tasks = [last]
    await site.end_all()
