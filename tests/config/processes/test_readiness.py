import http.server
import json
import threading

import pytest

from config.processes import readiness

READY = {"waiting_for": [], "gateways": {"gateway": {"ready": True}}}


@pytest.fixture
def operators(settings):
    """Return a function that answers as the operators' port does."""
    servers = []

    def serve(answer, *, cut=0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body) + cut))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        settings.MODELYARD_OPERATOR_PORT = server.server_port
        # Processes listen on all addresses, and nobody can call that one.
        settings.MODELYARD_OPERATOR_HOST = "0.0.0.0"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (READY, True),
        ({**READY, "waiting_for": ["language"]}, False),
        ({**READY, "gateways": {"gateway": {"ready": False}}}, False),
        # Another server's.
        ({"status": "ok"}, False),
        ([], False),
    ],
)
def test_every_gateway_and_every_model_must_be_ready(operators, answer, ready):
    operators(answer)

    assert readiness.all_ready(timeout_s=10) is ready


def test_an_answer_that_is_cut_off_is_none(operators):
    operators(READY, cut=1)

    assert not readiness.all_ready(timeout_s=10)


def test_nobody_listens_yet(operators, settings):
    settings.MODELYARD_OPERATOR_PORT = 1

    assert not readiness.all_ready(timeout_s=10)
