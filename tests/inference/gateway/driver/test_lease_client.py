import asyncio
import json
import socket
import time

import httpx
import pytest

from accounts.admission.admission import Admission
from accounts.admission.limits import Limits, Quota
from inference.gateway.driver.lease_client import LeaseClient
from tests.fakes import ManualClock
from tests.inference.gateway.plant import Plant
from tests.inference.gateway.test_app import on_loop

LIMITS = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 100),))


@on_loop
async def test_quota_is_leased_and_spent_to_its_last_unit(tmp_path):
    plant = Plant(tmp_path, limits=LIMITS)
    plant.site.granted = 100

    statuses = [(await plant.ask()).status_code for _ in range(103)]

    assert statuses == [200] * 100 + [429] * 3


@on_loop
async def test_calls_at_once_never_get_more_than_the_quota(tmp_path):
    plant = Plant(tmp_path, limits=LIMITS)
    plant.site.granted = 100

    answers = await asyncio.gather(*(plant.ask() for _ in range(130)))

    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(200), statuses.count(429)) == (100, 30)
    assert plant.site.granted == 0


@on_loop
async def test_calls_at_once_share_a_request_for_units(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 10**6),)),
    )
    plant.site.granted = 10**6

    await asyncio.gather(*(plant.ask() for _ in range(50)))

    assert plant.site.paths()["/internal/leases"] < 5


@on_loop
async def test_a_refusal_of_the_site_is_counted_by_its_status(tmp_path, caplog):
    few = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 10),))
    plant = Plant(tmp_path, limits=few)
    plant.site.failure = httpx.HTTPStatusError(
        "refused", request=httpx.Request("POST", "/"), response=httpx.Response(400)
    )

    refused = await plant.ask()
    failing = plant.leases.failing
    plant.site.failure = None
    plant.clock.advance(10)
    granted = await plant.ask()

    assert (refused.status_code, granted.status_code) == (503, 200)
    assert (failing, plant.leases.failing) == (True, False)
    assert plant.leases.failures == {"status 400": 1}


@on_loop
async def test_a_failure_is_told_no_longer_than_its_alert_waits(tmp_path):
    """Without calls, nothing would ever find out that the site is back."""
    plant = Plant(tmp_path, limits=LIMITS)
    plant.site.failure = httpx.ReadTimeout("too slow")

    await plant.ask()
    plant.clock.advance(40)
    soon = plant.leases.failing
    plant.clock.advance(19)

    assert (soon, plant.leases.failing) == (True, False)
    await plant.ask()
    assert plant.leases.failing


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("gone"), httpx.ReadTimeout("slow")]
)
@on_loop
async def test_site_that_is_away_means_overloaded_not_spent(tmp_path, failure):
    # Five percent of ten is less than one: there is nothing to overdraw.
    few = Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 10),))
    plant = Plant(tmp_path, limits=few)
    plant.site.failure = failure

    refused = await plant.ask()
    plant.site.failure = None
    plant.clock.advance(2)
    plant.site.granted = 100
    answered = await plant.ask()

    assert (refused.status_code, answered.status_code) == (503, 200)
    assert refused.json()["error"]["code"] == "OVERLOADED"
    assert int(refused.headers["retry-after"]) >= 1


@on_loop
async def test_units_in_hand_and_an_overdraft_serve_while_the_site_is_away(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1000),)),
    )
    plant.site.granted = 1000
    first = await plant.ask()
    [held] = [admission.held() for admission in plant.tables.admissions.everyone()]
    plant.site.failure = httpx.ConnectError("gone")

    statuses = [(await plant.ask()).status_code for _ in range(held + 55)]

    assert first.status_code == 200
    # Five percent of the limit.
    assert statuses == [200] * (held + 50) + [503] * 5
    [admission] = plant.tables.admissions.everyone()
    assert admission.overdrawn() == 50


@on_loop
async def test_an_overdraft_is_reported_once_the_site_is_back(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1000),)),
    )
    plant.site.granted = 1000
    plant.site.failure = httpx.ConnectError("gone")
    for _ in range(7):
        assert (await plant.ask()).status_code == 200
    plant.site.failure = None
    plant.clock.advance(2)

    answer = await plant.ask()

    assert answer.status_code == 200
    assert json.loads(plant.site.bodies[-1])["overdrawn"] == 7


@on_loop
async def test_calls_do_not_wait_for_a_site_that_has_just_failed(tmp_path):
    plant = Plant(tmp_path, limits=LIMITS)
    plant.site.failure = httpx.ReadTimeout("slow")

    for _ in range(5):
        await plant.ask()

    assert plant.site.paths() == {"/internal/leases": 1}


@on_loop
async def test_only_the_first_calls_wait_for_a_site_that_says_nothing(tmp_path):
    quota = Quota("day", "requests", 1000)
    admission = Admission(7, Limits(plan="p", rates=(), quotas=(quota,)))
    timer = ManualClock()
    took = []
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "site.sock"))
        silent.listen()
        silent.setblocking(False)
        client = LeaseClient(
            holder="boot",
            clock=lambda: 1_000_000.0,
            timer=timer,
            socket=tmp_path / "site.sock",
        )
        for _ in range(4):
            began = time.monotonic()
            request = admission.spend(1, 1_000_000.0)
            await client.fetch(request, admission)
            assert admission.spend(1, 1_000_000.0) is None
            took.append(time.monotonic() - began)
            # From now on the client asks the site again.
            timer.advance(2)
        # Once by the first call, and once while the others go on.
        async with asyncio.timeout(20):
            for _ in range(2):
                (await asyncio.get_running_loop().sock_accept(silent))[0].close()
        await client.close()

    assert took[0] > 1
    assert max(took[1:]) < 0.5


@on_loop
async def test_what_is_lent_to_a_call_that_did_not_wait_is_kept(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1000),)),
    )
    plant.site.failure = httpx.ConnectError("gone")
    await plant.ask()
    plant.site.failure = None
    plant.site.granted = 1000
    plant.clock.advance(2)
    await plant.ask()

    statuses = {(await plant.ask()).status_code for _ in range(10)}

    [admission] = plant.tables.admissions.everyone()
    assert statuses == {200}
    assert admission.overdrawn() == 2
    assert plant.site.paths() == {"/internal/leases": 2}


@on_loop
async def test_the_next_lease_is_asked_for_before_the_last_is_spent(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 10**6),)),
        prefetch=True,
    )
    plant.site.granted = 10**6
    waits = 0
    for _ in range(300):
        held = sum(admission.held() for admission in plant.tables.admissions.everyone())
        waits += held == 0
        await plant.ask()
        await asyncio.sleep(0)

    # Only the first call had no units to spend.
    assert waits == 1
    assert plant.site.paths()["/internal/leases"] > 1


@on_loop
async def test_what_is_recalled_is_not_spent(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1000),)),
    )
    plant.site.granted = 1000
    await plant.ask()
    [held] = [admission.held() for admission in plant.tables.admissions.everyone()]
    asked = json.loads(plant.site.bodies[0])
    recall = {
        name: asked[name] for name in ("customer_id", "quota", "unit", "window_start")
    }

    answer = await plant.ask(
        "/recall", json.dumps(recall).encode(), app=plant.control_app
    )
    plant.site.granted = 0
    after = await plant.ask()

    assert held > 0
    assert answer.json() == {"units": held, "number": 1}
    assert after.status_code == 429


@on_loop
async def test_units_in_hand_are_given_up_at_the_end(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 1000),)),
    )
    plant.site.granted = 1000
    await plant.ask()

    await plant.leases.release(plant.tables.admissions.release())

    given_up = json.loads(plant.site.bodies[-1])
    assert (given_up["units"], given_up["leased"], given_up["holder"]) == (0, 1, "boot")


@on_loop
async def test_the_loop_turns_while_the_site_says_nothing(tmp_path):
    quota = Quota("day", "requests", 1000)
    admission = Admission(7, Limits(plan="p", rates=(), quotas=(quota,)))
    request = admission.spend(1, 1_000_000.0)
    gaps = []

    async def tick():
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    ticking = asyncio.create_task(tick())
    with socket.socket(socket.AF_UNIX) as silent:
        # It accepts connections and never answers.
        silent.bind(str(tmp_path / "site.sock"))
        silent.listen()
        client = LeaseClient(
            holder="boot", clock=lambda: 1_000_000.0, socket=tmp_path / "site.sock"
        )
        await client.fetch(request, admission)
        await client.close()
    outcome = admission.spend(1, 1_000_000.0)
    ticking.cancel()

    # The call has waited for the time-out, and spends what it may overdraw.
    assert outcome is None
    assert admission.overdrawn() == 1
    # Never for longer than another process may have kept the processor.
    assert len(gaps) > 10
    assert max(gaps) < sum(gaps) / 2


class Crowded(httpx.AsyncBaseTransport):
    """Answer one request after the other, and count those that wait."""

    def __init__(self, failure=None):
        self.failure = failure
        self.waiting = self.most = self.asked = 0

    async def handle_async_request(self, request):
        self.asked += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.01)
        self.waiting -= 1
        if self.failure is not None:
            raise self.failure
        return httpx.Response(200, json={"units": 10, "remaining": 0})


@pytest.mark.parametrize("failure", [None, httpx.ReadTimeout("slow")])
@on_loop
async def test_many_customers_at_once_wait_in_turn_and_only_for_a_site_that_lends(
    failure,
):
    """As a day begins all customers need units: the site is busy then, not away."""
    clock = ManualClock(1_000_000.0)
    site = Crowded(failure)
    leases = LeaseClient(holder="boot", clock=clock, timer=clock, transport=site)

    async def call(customer_id):
        admission = Admission(customer_id, LIMITS)
        await leases.fetch(admission.spend(1, clock()), admission)
        return admission.spend(1, clock())

    asked = [asyncio.create_task(call(number)) for number in range(200)]
    done = await asyncio.gather(*asked, return_exceptions=True)

    assert site.most == 20
    if failure is None:
        assert done == [None] * 200
    else:
        # The overdraft answers meanwhile.
        assert site.asked == 20
