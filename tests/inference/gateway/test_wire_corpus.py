"""Compare what we accept as a request with what nginx and uvicorn accept.

`python -m tests.inference.gateway.test_wire_corpus` asks all three and records what
they answer in `wire_verdicts.json`; `NGINX` names another nginx than the system's.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from inference.gateway.http1.asgi import answered_by
from tests.inference.gateway.plant import listener, listening
from tests.inference.gateway.test_app import on_loop
from tests.inference.gateway.wire_corpus import CASES

VERDICTS = Path(__file__).with_name("wire_verdicts.json")
NGINX = os.environ.get("NGINX") or shutil.which("nginx")
# After this long without data, no more is expected.
QUIET_S = 2.0
NGINX_CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://127.0.0.1:{application}/; }} }}
}}
"""


async def application(scope, receive, send):
    """Answer 200 once the whole body is there."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def verdict(port, sent):
    """Return the statuses of the answers, or how the connection ended without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received, end = b"", " -"
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        writer.write(sent)
        end = " x"
        while True:
            try:
                more = await asyncio.wait_for(reader.read(65536), QUIET_S)
            except TimeoutError:
                end = " -"
                break
            if not more:
                break
            received += more
    writer.transport.abort()
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3})", received)
    return b" ".join(it for it in statuses if it != b"100").decode() or end.strip()


async def verdicts(port):
    found = await asyncio.gather(*(verdict(port, case.sent) for case in CASES))
    return {case.name: it for case, it in zip(CASES, found, strict=True)}


async def our_verdicts():
    serving = listener(answered_by(application), time.monotonic)
    async with listening(serving) as port:
        return await verdicts(port)


async def all_verdicts(ports):
    """Ask us and the others at the same time."""
    return await asyncio.gather(our_verdicts(), *map(verdicts, ports))


def taken(found):
    """Count the requests that were accepted."""
    return found.split().count("200")


def taken_by_us_alone(ours, others):
    return {
        name: (found, *[other[name] for other in others])
        for name, found in ours.items()
        if taken(found) > max(taken(other[name]) for other in others)
    }


@contextlib.contextmanager
def running(*command):
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


async def until_up(port):
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                if await verdict(port, request) == "200":
                    return
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def others(folder):
    """Run uvicorn, and nginx in front of it; yield both ports."""
    port, before = free_port(), free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(folder=folder, port=before, application=port)
    )
    with (
        running(
            sys.executable,
            *("-m", "uvicorn", "--http", "h11", "--port", str(port)),
            *(
                "--log-level",
                "critical",
                "tests.inference.gateway.test_wire_corpus:application",
            ),
        ),
        running(NGINX, "-c", str(configuration), "-p", str(folder)),
    ):
        for asked in (port, before):
            asyncio.run(until_up(asked))
        yield before, port


@on_loop
async def test_we_answer_as_we_did():
    recorded = json.loads(VERDICTS.read_text())

    ours = await our_verdicts()

    assert ours == {name: its["ours"] for name, its in recorded.items()}


def test_we_take_nothing_that_both_others_refuse():
    recorded = json.loads(VERDICTS.read_text())
    ours, nginx, uvicorn = (
        {name: its[server] for name, its in recorded.items()}
        for server in ("ours", "nginx", "uvicorn")
    )

    assert taken_by_us_alone(ours, [nginx, uvicorn]) == {}


@pytest.mark.processes
@pytest.mark.skipif(NGINX is None, reason="no nginx here: the recorded answers hold")
def test_nor_what_those_of_this_machine_refuse(tmp_path):
    pytest.importorskip("uvicorn")
    with others(tmp_path) as ports:
        ours, *found = asyncio.run(all_verdicts(ports))

    assert taken_by_us_alone(ours, found) == {}


def main():
    import tempfile

    with tempfile.TemporaryDirectory() as folder, others(Path(folder)) as ports:
        ours, nginx, uvicorn = asyncio.run(all_verdicts(ports))
    table = {
        name: {"ours": ours[name], "nginx": nginx[name], "uvicorn": uvicorn[name]}
        for name in ours
    }
    VERDICTS.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(taken_by_us_alone(ours, [nginx, uvicorn]), indent=1))


if __name__ == "__main__":
    main()
