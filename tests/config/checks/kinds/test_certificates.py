import os
import socket
import ssl
import threading

import pytest

from config.checks.kinds import certificates
from config.checks.kinds.certificates import Certificate
from tests.certificates import in_days, make

DAY_S = 86_400
NOW = 1_000 * DAY_S


@pytest.mark.parametrize(
    ("certificate", "codes"),
    [
        (Certificate("gRPC", NOW + 30 * DAY_S), []),
        (Certificate("gRPC", NOW + 5 * DAY_S), ["certificate-ends-soon"]),
        (Certificate("gRPC", NOW - DAY_S), ["certificate-ended"]),
        (
            Certificate("a", NOW + 30 * DAY_S, refused="wrong name"),
            ["public-certificate-refused"],
        ),
        # That it ended is why it is refused.
        (Certificate("a", NOW - DAY_S, refused="expired"), ["certificate-ended"]),
        (Certificate("a", silent="refused"), ["public-url-silent"]),
    ],
)
def test_each_fact_has_its_finding(certificate, codes):
    found = certificates.judge([certificate], now=NOW)

    assert [finding.code for finding in found] == codes


@pytest.fixture
def ended(tmp_path):
    """Files of a certificate that ended yesterday, and of its key."""
    return make(tmp_path, end=in_days(-1))


@pytest.fixture
def tls_port(ended):
    """The port of a server that shows that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ended)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for _ in range(2):
                plain, _ = server.accept()
                with plain:
                    try:
                        context.wrap_socket(plain, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_the_end_of_a_certificate_that_a_server_shows_is_seen(tls_port, settings):
    settings.MODELYARD_PUBLIC_URL = f"https://localhost:{tls_port}"

    [found] = certificates.look()

    assert found.code == "certificate-ended"
    assert settings.MODELYARD_PUBLIC_URL in found.sentence


def test_nobody_at_the_public_url_is_said(settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings.MODELYARD_PUBLIC_URL = f"https://localhost:{port}"

    assert [found.code for found in certificates.look()] == ["public-url-silent"]


def test_the_end_of_grpcs_certificate_is_seen(ended, monkeypatch):
    certificate, key = ended
    monkeypatch.setenv("MODELYARD_GRPC_CERTIFICATE_FILE", str(certificate))
    monkeypatch.setenv("MODELYARD_GRPC_KEY_FILE", str(key))

    assert [found.code for found in certificates.look()] == ["certificate-ended"]


def test_a_key_that_does_not_fit_is_said(ended, monkeypatch):
    monkeypatch.setenv("MODELYARD_GRPC_CERTIFICATE_FILE", str(ended[0]))
    monkeypatch.setenv("MODELYARD_GRPC_KEY_FILE", os.devnull)

    [found] = certificates.look()

    assert found.code == "grpc-certificate-unreadable"
