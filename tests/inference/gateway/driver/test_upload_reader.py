"""The gateway asks the site for uploaded files, and answers when it cannot."""

import asyncio

import httpx
import pytest

from inference.gateway.driver.upload_reader import InputFiles
from inference.prediction.effects import ReadUpload
from tests.inference.gateway.plant import PREDICT, Plant
from tests.inference.gateway.test_app import on_loop

BODY = b'{"input_uri": "upload://upl_' + b"ab" * 16 + b'"}'
CSV = httpx.Response(200, headers={"content-type": "text/csv"}, content=b"x\n1.5\n2\n")


@on_loop
async def test_a_prediction_reads_its_rows_from_the_site(tmp_path):
    plant = Plant(tmp_path)
    plant.site.answer = CSV

    answer = await plant.ask(PREDICT, BODY)

    assert answer.json()["predictions"] == [3.0, 4.0]
    [request] = plant.site.requests
    assert request.url.path == f"/internal/uploads/upl_{'ab' * 16}"
    assert request.url.params["customer"] == "7"
    # With this header the site would take it for a relayed request, and refuse it.
    assert "x-forwarded-for" not in request.headers


@pytest.mark.parametrize(
    ("status", "then", "code"),
    [
        (404, 404, "NOT_FOUND"),
        (409, 409, "CONFLICT"),
        (410, 410, "GONE"),
        (413, 413, "TOO_LARGE"),
        (500, 503, "OVERLOADED"),
    ],
)
@on_loop
async def test_what_the_site_says_is_told(tmp_path, status, then, code):
    plant = Plant(tmp_path)
    plant.site.answer = httpx.Response(status)

    answer = await plant.ask(PREDICT, BODY)

    assert answer.status_code == then
    assert answer.json()["error"]["code"] == code


@on_loop
async def test_a_site_that_is_away_is_waited_for_by_nobody(tmp_path):
    plant = Plant(tmp_path)
    plant.site.failure = httpx.ReadTimeout("stopped")

    answer = await plant.ask(PREDICT, BODY)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


class HeldSite(httpx.AsyncBaseTransport):
    """Answer one request after the other, when the test says so."""

    def __init__(self):
        self.asked = []
        self.go_on = asyncio.Semaphore(0)

    async def handle_async_request(self, request):
        self.asked.append(int(request.url.params["customer"]))
        await self.go_on.acquire()
        return httpx.Response(200, headers={"content-type": "text/csv"}, content=b"x")


@on_loop
async def test_a_customer_who_floods_leaves_others_their_turn():
    site = HeldSite()
    files = InputFiles(transport=site)

    def read(customer_id):
        asked = ReadUpload("upl_1", customer_id, 1000)
        return asyncio.ensure_future(files.read(asked))

    flood = [read(1) for _ in range(20)]
    await asyncio.sleep(0)
    once = read(2)
    async with asyncio.timeout(30):
        while len(site.asked) < 3:
            await asyncio.sleep(0)
    assert sorted(site.asked) == [1, 1, 2]
    for _ in range(21):
        site.go_on.release()
    found = await asyncio.gather(*flood, once)

    assert {file.content for file in found} == {b"x"}
    assert files.turns.used == files.turns.refused == 0
    await files.close()
