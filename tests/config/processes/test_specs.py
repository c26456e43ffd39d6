import re
from pathlib import Path

import pytest
from gunicorn.app.wsgiapp import WSGIApplication

from config.processes.specs import process_specs
from inference.engine.devices import found
from inference.installation.home import Home

SETTINGS = Path(__file__).resolve().parents[3] / "platform" / "config" / "settings.py"


def test_headers_that_the_gateway_lets_through_reach_django():
    # The site's server would refuse longer heads in HTML; the gateway limits them.
    [site] = [spec for spec in process_specs() if spec.name == "site"]
    arguments = site.command[site.command.index("gunicorn") + 1 :]

    application = WSGIApplication.__new__(WSGIApplication)
    application.usage = application.prog = None
    application.load_default_config()
    parsed = application.cfg.parser().parse_args(arguments)

    assert parsed.limit_request_line == 0
    assert parsed.limit_request_field_size >= 64 * 1024
    assert parsed.limit_request_fields >= 10_000
    assert parsed.forwarder_headers == ""


def test_leases_share_neither_sockets_nor_threads_with_pages():
    [site] = [spec for spec in process_specs() if spec.name == "site"]
    [internal] = [spec for spec in process_specs() if spec.name == "internal"]

    sockets = [
        spec.command[spec.command.index("--bind") + 1] for spec in (site, internal)
    ]

    assert len(set(sockets)) == 2


def test_several_gateways_are_processes_of_their_own(settings):
    settings.MODELYARD_GATEWAYS = 3

    gateways = [spec for spec in process_specs() if "inference.gateway" in spec.command]

    assert [spec.name for spec in gateways] == ["gateway", "gateway-2", "gateway-3"]
    assert {spec.environment["MODELYARD_GATEWAYS"] for spec in gateways} == {"3"}


def test_the_host_is_told_every_device(settings):
    settings.MODELYARD_DEVICES = ["cuda:0", "cuda:1"]

    (host,) = [spec for spec in process_specs() if "inference.host" in spec.command]

    assert host.command[-2:] == ("--devices", "cuda:0,cuda:1")


def test_devices_are_found_by_themselves_and_named_once(settings):
    settings.MODELYARD_DEVICES = ["auto", *found.devices()]

    (host,) = [spec for spec in process_specs() if "inference.host" in spec.command]

    assert host.command[-1] == ",".join(found.devices())


def test_every_gateway_shares_the_grpc_port(settings):
    settings.MODELYARD_GATEWAYS, settings.MODELYARD_GRPC_PORT = 2, 8123

    gateways = [spec for spec in process_specs() if "inference.gateway" in spec.command]

    assert [spec.environment["MODELYARD_GRPC_PORT"] for spec in gateways] == [
        "8123"
    ] * 2


@pytest.mark.parametrize("module", ["inference.host", "inference.gateway"])
def test_the_data_plane_gets_no_credential_of_anything_else(module):
    # A model is code: it can send away whatever its process can read.
    [spec] = [spec for spec in process_specs() if module in spec.command]
    urls = re.findall(
        r'env[.\w]*\(\s*"(\w+_(?:URL|URI|KEY|OPTIONS))"', SETTINGS.read_text()
    )
    public = {"MODELYARD_PUBLIC_URL"}

    assert {"DATABASE_URL", "EMAIL_URL", "SECRET_KEY"} <= set(urls)
    stores = {
        "AWS_SECRET_ACCESS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "MLFLOW_TRACKING_PASSWORD",
    }
    for name in {*urls, *stores} - public:
        assert {name, f"{name}_FILE"} <= spec.hidden


@pytest.fixture
def waiting(settings, tmp_path):
    """Return a function that names the processes that let the engines start first."""
    settings.HOME = Home(tmp_path)
    settings.HOME.prepare()
    return lambda: {spec.name for spec in process_specs() if spec.starts_late}


def test_nothing_in_the_background_delays_the_first_answer(waiting):
    assert waiting() == {"worker", "beat"}


def test_the_controller_waits_only_if_engines_know_what_to_load(waiting, settings):
    settings.HOME.host_plan.write_text("{}")

    assert waiting() == {"controller", "worker", "beat"}
