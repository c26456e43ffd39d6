"""Test that a strict reader, Node and aiohttp can read the answers of relayed paths."""

import asyncio
import json
import shutil
import subprocess

import aiohttp
import pytest

from tests import machine
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.inference.contract_fronts import ask_raw
from tests.inference.http_answers import read_all

pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240),
]

PATHS = (
    "/",
    "/docs/",
    "/docs/errors",
    "/docs/redoc/",
    "/docs/redoc/redoc.js",
    "/api/schema/",
    "/api/v1/me",
    "/api/v1/models",
    "/api/v1/models/none",
    "/api/v1/jobs",
    "/api/v1/jobs/none",
    "/api/v1/uploads",
    "/api/v1/usage",
    "/admin/",
    "/admin/login/",
    "/portal/",
    "/portal/sign-in/",
    "/static/modelyard/favicon.svg",
    "/favicon.ico",
    "/robots.txt",
    "/healthz",
    "/readyz",
    "/v2",
    "/metrics",
    "/nothing",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
# Reads every path's answer; prints [status, length of the body] of each.
IN_NODE = """
const [base, token, ...paths] = process.argv.slice(1);
const headers = {authorization: `Bearer ${token}`};
const answers = [];
for (const path of paths) {
  const answer = await fetch(base + path, {headers, redirect: "manual"});
  answers.push([answer.status, (await answer.arrayBuffer()).byteLength]);
}
console.log(JSON.stringify(answers));
"""


def asked(method, path, token, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    lines.append(f"Authorization: Bearer {token}")
    if method in ("POST", "PUT", "PATCH"):
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode()


def read_strictly(port, token):
    """Ask for all paths by all methods; return status and length of each GET."""
    found = {}
    for path in PATHS:
        sent = [asked(method, path, token) for method in METHODS]
        sent[-1] = sent[-1].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        received = asyncio.run(ask_raw(port, b"".join(sent)))
        try:
            first, head, *_ = read_all(received, list(METHODS))
        except AssertionError as error:
            raise AssertionError(f"{path}: {error}") from error
        assert head.status == first.status, path
        found[path] = [first.status, len(first.body)]
    return found


def once(plant, path, *headers):
    """Ask for one path without a key; return the answer."""
    sent = asked("GET", path, "", "Connection: close", *headers)
    [answer] = read_all(asyncio.run(ask_raw(plant.gateways.port, sent)), ["GET"])
    return answer


async def in_aiohttp(url, token):
    headers = {"authorization": f"Bearer {token}"}
    found = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in PATHS:
            async with session.get(url + path, allow_redirects=False) as answer:
                found.append([answer.status, len(await answer.read())])
    return found


def in_node(url, token):
    node = shutil.which("node")
    if node is None:
        print("no node here: its fetch was not asked")
        return None
    run = subprocess.run(
        [node, "--input-type=module", "-e", IN_NODE, "--", url, token, *PATHS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_clients_of_every_mind_read_what_is_relayed(home):
    plan = PlanFactory(burst_requests=10**5, sustained_requests=10**5)
    key = issue_key(CustomerFactory(plan=plan))
    with machine.running(gateways=1) as plant:
        machine.wait_until(lambda: plant.answers(key.token), what="a prediction")
        strictly = read_strictly(plant.gateways.port, key.token)
        icon = once(plant, "/static/modelyard/favicon.svg")
        unchanged = once(
            plant,
            "/static/modelyard/favicon.svg",
            f"If-Modified-Since: {icon.headers['last-modified']}",
        )
        by_aiohttp = asyncio.run(in_aiohttp(plant.url, key.token))
        by_node = in_node(plant.url, key.token)

    statuses = {path: status for path, (status, _) in strictly.items()}
    assert statuses["/docs/redoc/redoc.js"] == statuses["/api/v1/me"] == 200
    assert strictly["/docs/redoc/redoc.js"][1] > 100_000
    assert unchanged.status == 304
    assert [status for status, _ in by_aiohttp] == list(statuses.values())
    assert by_node is None or [it for it, _ in by_node] == list(statuses.values())
