import asyncio

import httpx
import pytest

from accounts.limits import LeaseReturn, Limits, Quota
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


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("gone"), httpx.ReadTimeout("slow")]
)
@on_loop
async def test_site_that_is_away_means_overloaded_not_spent(tmp_path, failure):
    plant = Plant(tmp_path, limits=LIMITS)
    plant.site.failure = failure

    refused = await plant.ask()
    plant.site.failure = None
    plant.site.granted = 100
    answered = await plant.ask()

    assert (refused.status_code, answered.status_code) == (503, 200)
    assert refused.json()["error"]["code"] == "OVERLOADED"
    assert int(refused.headers["retry-after"]) >= 1


@on_loop
async def test_units_in_hand_serve_while_the_site_is_away(tmp_path):
    plant = Plant(
        tmp_path,
        limits=Limits(plan="p", rates=(), quotas=(Quota("day", "requests", 10**6),)),
    )
    plant.site.granted = 10**6
    await plant.ask()
    [held] = plant.tables.held()
    plant.site.failure = httpx.ConnectError("gone")

    statuses = [(await plant.ask()).status_code for _ in range(held.units + 1)]

    assert statuses == [200] * held.units + [503]


@on_loop
async def test_units_in_hand_are_released(tmp_path):
    plant = Plant(tmp_path)
    units = LeaseReturn(
        customer_id=7, quota="day", unit="requests", window_start=0, units=5
    )

    await plant.leases.release([units])

    assert plant.site.paths() == {"/internal/leases/release": 1}
    assert b'"holder":"boot"' in plant.site.bodies[0]
