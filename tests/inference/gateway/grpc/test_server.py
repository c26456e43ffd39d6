"""Encrypted gRPC ports, with certificates made for the test."""

import asyncio
import ssl
import time

import grpc
import pytest
from cryptography import x509
from grpc import aio

from inference.dialects.open_inference import open_inference_pb2 as messages
from inference.gateway.grpc.certificates import Certificates
from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from inference.gateway.settings import from_environment
from tests.certificates import in_days, make
from tests.inference.gateway.plant import Plant


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make(tmp_path_factory.mktemp("certificates"))


async def ask(folder, credentials, **settings):
    """Ask a server with these settings whether it is alive."""
    plant = Plant(folder)
    server = GrpcServer(plant.driver, GrpcSettings(max_message_bytes=1024, **settings))
    await server.start()
    target = f"127.0.0.1:{server.port}"
    channel = (
        aio.secure_channel(target, credentials)
        if credentials
        else aio.insecure_channel(target)
    )
    try:
        async with channel:
            live = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerLive",
                response_deserializer=messages.ServerLiveResponse.FromString,
            )
            return (await live(b"", timeout=5)).live
    finally:
        await server.stop(0)


def test_calls_are_encrypted_where_there_is_a_certificate(tmp_path, certificate):
    path, key = certificate
    trusting = grpc.ssl_channel_credentials(path.read_bytes())

    assert asyncio.run(ask(tmp_path, trusting, certificate=path, key=key))


def test_plain_calls_do_not_reach_an_encrypted_port(tmp_path, certificate):
    path, key = certificate

    with pytest.raises(aio.AioRpcError):
        asyncio.run(ask(tmp_path, None, certificate=path, key=key))


def test_clients_show_a_certificate_where_an_authority_is_named(tmp_path, certificate):
    path, key = certificate
    authority = path.read_bytes()
    unknown = grpc.ssl_channel_credentials(authority)
    known = grpc.ssl_channel_credentials(authority, key.read_bytes(), authority)
    settings = {"certificate": path, "key": key, "client_ca": path}

    for name in ("known", "unknown"):
        (tmp_path / name).mkdir()

    assert asyncio.run(ask(tmp_path / "known", known, **settings))
    with pytest.raises(aio.AioRpcError):
        asyncio.run(ask(tmp_path / "unknown", unknown, **settings))


@pytest.mark.parametrize("given", [["CERTIFICATE"], ["KEY"], ["CLIENT_CA"]])
def test_half_of_an_encryption_is_refused(certificate, given):
    environment = {f"MODELYARD_GRPC_{name}_FILE": str(certificate[0]) for name in given}

    with pytest.raises(ValueError, match="MODELYARD_GRPC_"):
        from_environment(environment)


def test_files_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="MODELYARD_GRPC_KEY_FILE names no file"):
        from_environment({"MODELYARD_GRPC_KEY_FILE": "/nowhere/key.pem"})


def shown_by(port):
    """Return the serial number of the certificate that a port shows."""
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path):
    folder = tmp_path / "certificates"
    certificate, key = make(folder)

    async def main():
        settings = {"certificate": certificate, "key": key}
        server = GrpcServer(
            Plant(tmp_path).driver, GrpcSettings(max_message_bytes=1024, **settings)
        )
        await server.start()
        numbers = [await asyncio.to_thread(shown_by, server.port)]
        _, other_key = make(tmp_path / "other")
        # A new certificate without its key does not match.
        key.write_bytes(other_key.read_bytes())
        server.certificates.look()
        numbers.append(await asyncio.to_thread(shown_by, server.port))
        make(folder, number=2)
        # The server looks by itself.
        async with asyncio.timeout(60):
            while numbers[-1] == 1:
                numbers.append(await asyncio.to_thread(shown_by, server.port))
                await asyncio.sleep(0.1)
        await server.stop(0)
        return numbers

    numbers = asyncio.run(main())

    assert numbers[:2] == [1, 1]
    assert numbers[-1] == 2


@pytest.mark.parametrize(
    ("days", "said"),
    [(100, None), (3, "grpc_certificate_ends_soon"), (-1, "grpc_certificate_ended")],
)
def test_the_end_of_a_certificate_is_said(tmp_path, caplog, days, said):
    certificates = Certificates(*make(tmp_path, end=in_days(days)))
    certificates.look()

    lines = [str(record.msg) for record in caplog.records]
    assert [said in line for line in lines] == ([True] if said else [])
    assert abs(certificates.not_after - time.time() - days * 86_400) < 3600
