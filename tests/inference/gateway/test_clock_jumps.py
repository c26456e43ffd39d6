"""The wall clock jumps while a gateway serves: windows, leases, expiry."""

import msgspec
import pytest

from accounts.admission.limits import Limits, Quota, Rate
from tests.inference.gateway.plant import Plant, published
from tests.inference.gateway.test_app import on_loop

HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400
JUMPS = pytest.mark.parametrize("jump_s", [-YEAR, -DAY, -HOUR, -2, 2, HOUR, DAY, YEAR])


async def statuses(plant, count):
    return [(await plant.ask()).status_code for _ in range(count)]


@JUMPS
@on_loop
async def test_a_rate_never_shuts_out_for_longer_than_its_window(tmp_path, jump_s):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(Rate("burst", 3, 1),)))
    before = await statuses(plant, 5)

    plant.clock.advance(jump_s)
    # At most the calls of one window, in whichever direction the clock jumped.
    at_once = await statuses(plant, 8)
    plant.clock.advance(1)
    after = await statuses(plant, 5)

    assert before == [200] * 3 + [429] * 2
    assert at_once.count(200) <= 3
    assert after == [200] * 3 + [429] * 2


@JUMPS
@on_loop
async def test_a_quota_is_spent_from_what_was_lent_and_no_further(tmp_path, jump_s):
    day = Quota("day", "requests", 1000)
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(), quotas=(day,)))
    # What the site lends in all days together: a clock must not create units.
    plant.site.granted = 40
    first = await statuses(plant, 10)

    plant.clock.advance(jump_s)
    there = await statuses(plant, 20)
    plant.clock.advance(-jump_s)
    back = await statuses(plant, 20)

    answered = (first + there + back).count(200)
    assert first == [200] * 10
    assert answered <= 40
    assert set(first + there + back) <= {200, 429}


@on_loop
async def test_a_key_expires_by_the_clock_and_comes_back_with_it(tmp_path):
    plant = Plant(tmp_path)
    made = published()
    until = plant.clock() + HOUR
    key = made.keys[0]
    keys = (msgspec.structs.replace(key, expires_at=until),)
    plant.tables.replace(msgspec.structs.replace(made, keys=keys, sequence=2))

    before = await statuses(plant, 1)
    plant.clock.advance(2 * HOUR)
    expired = await statuses(plant, 1)
    plant.clock.advance(-2 * HOUR)
    back = await statuses(plant, 1)

    assert (before, expired, back) == ([200], [401], [200])
