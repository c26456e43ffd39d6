"""Every refusal names its limit, in the answer and in the spool."""

import asyncio
import contextlib
import json

import httpx
import msgspec
import pytest

from accounts.admission.back_off import TOLERATED, BackOffs
from accounts.admission.limits import KeyLimits, Limits, Quota, Rate
from accounts.admission.shared_counts import SharedCounts
from accounts.metering.spool import read_events
from tests.inference.gateway.plant import (
    GOOD,
    KEY,
    PREDICT,
    Plant,
    listening,
    published,
)
from tests.inference.gateway.test_app import on_loop

PLENTY = (Rate("burst", 1000, 1),)
THREE_ROWS = json.dumps({"instances": [{"x": 1.0}] * 3}).encode()
# The plants' clock.
NOW = 1_000_000
TOMORROW = "1970-01-13T00:00:00Z"


def plan(*rates, quotas=(), **fields):
    return Limits(plan="p", rates=rates or PLENTY, quotas=quotas, **fields)


def day_of(limit, unit="rows", label=""):
    return Quota("day", unit, limit, label=label)


def plant_with(folder, limits, key_limits=None, *, granted=1000):
    plant = Plant(folder)
    snapshot = published(limits=limits)
    key = snapshot.keys[0]
    keys = (msgspec.structs.replace(key, limits=key_limits),)
    plant.tables.replace(msgspec.structs.replace(snapshot, keys=keys))
    plant.site.granted = granted
    return plant


@contextlib.asynccontextmanager
async def asking(plant):
    """Keep the plant's gateway listening; yield a function that sends a prediction."""
    client = httpx.AsyncClient(verify=False)
    async with listening(plant.listener) as port, client:

        async def ask():
            return await client.post(
                f"http://127.0.0.1:{port}{PREDICT}",
                json=GOOD,
                headers={"authorization": f"Bearer {KEY.token}"},
            )

        yield ask


def limit_of(answer):
    error = answer.json()["error"]
    about_the_error = ("code", "message", "retry_after_s", "request_id", "timestamp")
    return {k: v for k, v in error.items() if k not in (*about_the_error, "docs")}


def spooled_limits(plant):
    [segment] = plant.folder.glob("*.spool")
    return [event.limit for event, _ in read_events(segment)]


RATES = {
    "burst of the plan": (
        plan(Rate("burst", 1, 60)),
        None,
        {"limit": "burst", "scope": "customer", "source": "plan"},
        "The burst limit of your plan, 1 request per minute, is used up.",
    ),
    "sustained of the plan": (
        plan(Rate("burst", 5, 20), Rate("sustained", 1, 60)),
        None,
        {"limit": "sustained", "scope": "customer", "source": "plan"},
        "The sustained limit of your plan",
    ),
    "sustained of the customer": (
        plan(Rate("sustained", 1, 60), overridden=("sustained",)),
        None,
        {"limit": "sustained", "scope": "customer", "source": "override"},
        "The sustained limit of your account",
    ),
    "sustained of the key": (
        plan(),
        KeyLimits(rates=(Rate("key-sustained", 1, 60),)),
        {"limit": "key-sustained", "scope": "key", "source": "key"},
        "The sustained limit of this API key",
    ),
}


@pytest.mark.parametrize(
    ("limits", "key_limits", "named", "says"), RATES.values(), ids=RATES
)
@on_loop
async def test_a_rate_is_named(tmp_path, limits, key_limits, named, says):
    plant = plant_with(tmp_path, limits, key_limits)
    await plant.ask()

    refused = await plant.ask()

    window = NOW // 60 * 60
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert says in refused.json()["error"]["message"]
    assert limit_of(refused) == named | {
        "unit": "requests",
        "maximum": 1,
        "used": 1,
        "window_s": 60,
        "resets_at": "1970-01-12T13:47:00Z",
    }
    wait = window + 60 - NOW
    assert refused.headers["retry-after"] == str(wait)
    assert refused.headers["ratelimit"] == f'"{named["limit"]}";r=0;t={wait}'
    assert f'"{named["limit"]}";q=1;w=60' in refused.headers["ratelimit-policy"]
    plant.recorder.flush()
    kept = [None if limit is None else limit.facts() for limit in spooled_limits(plant)]
    assert kept == [None, limit_of(refused)]


QUOTAS = {
    "rows of the plan": (
        plan(quotas=(day_of(4),)),
        None,
        {"limit": "day", "scope": "customer", "source": "plan", "unit": "rows"},
        "1 of 4 rows is left of the daily quota of your plan; this request needs 3.",
        '"day"',
    ),
    "rows of the customer": (
        plan(quotas=(day_of(4),), overridden=("day",)),
        None,
        {"limit": "day", "scope": "customer", "source": "override", "unit": "rows"},
        "1 of 4 rows is left of the daily quota of your account",
        '"day"',
    ),
    "rows of the key": (
        plan(),
        KeyLimits(quotas=(day_of(4, label="key-day"),)),
        {"limit": "key-day", "scope": "key", "source": "key", "unit": "rows"},
        "1 of 4 rows is left of the daily quota of this API key",
        '"key-day"',
    ),
    "another unit beside requests": (
        plan(quotas=(day_of(500, "requests"), day_of(4, label="day-rows"))),
        None,
        {"limit": "day-rows", "scope": "customer", "source": "plan", "unit": "rows"},
        "1 of 4 rows is left of the daily quota of your plan",
        '"day";q=500;w=86400;qu="requests", "day-rows"',
    ),
}


@pytest.mark.parametrize(
    ("limits", "key_limits", "named", "says", "policy"), QUOTAS.values(), ids=QUOTAS
)
@on_loop
async def test_a_quota_is_named(tmp_path, limits, key_limits, named, says, policy):
    # Seven units of a quota of requests are leased ahead, none of a quota of four rows.
    ahead = 7 if len(limits.quotas) > 1 else 0
    plant = plant_with(tmp_path, limits, key_limits, granted=4 + ahead)
    answered = await plant.ask(content=THREE_ROWS)
    assert answered.status_code == 200

    refused = await plant.ask(content=THREE_ROWS)

    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "QUOTA_EXCEEDED"
    assert limit_of(refused) == named | {
        "maximum": 4,
        "used": 3,
        "needed": 3,
        "window_s": 86400,
        "resets_at": TOMORROW,
    }
    assert f"{policy};q=4;w=86400;qu=" in refused.headers["ratelimit-policy"]
    assert says in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("limits", "key_limits", "named"),
    [
        (plan(max_concurrency=1), None, ("concurrency", "customer", "plan")),
        (
            plan(max_concurrency=1, overridden=("concurrency",)),
            None,
            ("concurrency", "customer", "override"),
        ),
        (plan(), KeyLimits(max_concurrency=1), ("key-concurrency", "key", "key")),
    ],
    ids=["plan", "customer", "key"],
)
@on_loop
async def test_concurrency_is_named(tmp_path, limits, key_limits, named):
    plant = plant_with(tmp_path, limits, key_limits)
    plant.engine.hold = asyncio.Event()
    async with asking(plant) as ask:
        first = asyncio.create_task(ask())
        while not plant.engine.calls:
            await asyncio.sleep(0.001)
        refused = await ask()
        plant.engine.hold.set()
        answered = await first

    assert answered.status_code == 200
    assert refused.json()["error"]["code"] == "CONCURRENCY_EXCEEDED"
    assert limit_of(refused) == {
        **dict(zip(("limit", "scope", "source"), named, strict=True)),
        "unit": "concurrent-requests",
        "maximum": 1,
        "used": 1,
    }
    policy = f'"{named[0]}";q=1;qu="concurrent-requests"'
    assert policy in refused.headers["ratelimit-policy"]


@pytest.mark.parametrize(
    ("limits", "content", "named"),
    [
        (
            plan(max_predict_rows=2),
            THREE_ROWS,
            ("max_predict_rows", "plan", "rows", 2, 3),
        ),
        (
            plan(max_predict_rows=2, overridden=("max_predict_rows",)),
            THREE_ROWS,
            ("max_predict_rows", "override", "rows", 2, 3),
        ),
        (
            plan(max_body_bytes=20, overridden=("max_body_bytes",)),
            THREE_ROWS,
            ("max_body_bytes", "override", "bytes", 20, None),
        ),
        (
            plan(),
            b" " * (2 * 1024 * 1024 + 1),
            ("max_body_bytes", "site", "bytes", 2 * 1024 * 1024, None),
        ),
    ],
    ids=["rows", "rows of the customer", "bytes of the customer", "bytes of the site"],
)
@on_loop
async def test_a_size_is_named(tmp_path, limits, content, named):
    plant = plant_with(tmp_path, limits)

    refused = await plant.ask(content=content)

    name, source, unit, maximum, needed = named
    expected = {
        "limit": name,
        "scope": "customer",
        "source": source,
        "unit": unit,
        "maximum": maximum,
        "needed": needed,
    }
    assert refused.status_code == 413
    assert limit_of(refused) == {k: v for k, v in expected.items() if v is not None}
    [kept] = spooled_limits(plant)
    assert kept.facts() == limit_of(refused)


@on_loop
async def test_of_a_key_and_its_customer_the_one_that_opens_last_is_named(tmp_path):
    plant = plant_with(
        tmp_path,
        plan(Rate("sustained", 1, 60)),
        KeyLimits(rates=(Rate("key-burst", 1, 1),)),
    )
    await plant.ask()

    refused = await plant.ask()

    assert limit_of(refused)["limit"] == "sustained"
    assert refused.headers["retry-after"] == "20"


@on_loop
async def test_a_key_that_hammers_is_told_to_back_off(tmp_path):
    plant = plant_with(tmp_path, plan(Rate("sustained", 1, 60)))
    plant.tables.back_offs = BackOffs(SharedCounts(tmp_path / "counts"))
    async with asking(plant) as ask:
        answers = [await ask() for _ in range(TOLERATED + 3)]
        plant.clock.now_s += 20
        after_the_window = await ask()
        plant.clock.now_s += 1
        as_told = await ask()
        metrics = await plant.ask("/metrics", method="GET", app=plant.operator_app)

    last = answers[-1]
    assert [answer.status_code for answer in answers] == [200] + [429] * (TOLERATED + 2)
    assert {limit_of(answer)["limit"] for answer in answers[1:-1]} == {"sustained"}
    assert last.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert limit_of(last) == {
        "limit": "backoff",
        "scope": "key",
        "source": "site",
        "unit": "requests",
        "maximum": 0,
        "used": 0,
        "resets_at": "1970-01-12T13:47:01Z",
    }
    assert last.headers["retry-after"] == "21"
    assert last.headers["ratelimit"] == '"backoff";r=0;t=21'
    assert last.headers["x-ratelimit-remaining"] == "0"
    assert (after_the_window.status_code, as_told.status_code) == (429, 200)
    assert "modelyard_keys_backing_off 0.0" in metrics.text
