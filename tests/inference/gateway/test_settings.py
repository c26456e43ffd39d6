import pytest

from inference.gateway.settings import from_environment, gateway_names


def test_gateways_of_a_machine_are_named_in_order():
    assert gateway_names(1) == ("gateway",)
    assert gateway_names(3) == ("gateway", "gateway-2", "gateway-3")


def test_a_gateway_alone_shares_nothing():
    settings = from_environment({})

    assert (settings.name, settings.gateways) == ("gateway", 1)


def test_a_gateway_knows_its_place():
    settings = from_environment(
        {"MODELYARD_GATEWAYS": "2", "MODELYARD_PROCESS": "gateway-2"}
    )

    assert (settings.name, settings.gateways) == ("gateway-2", 2)


def test_a_name_that_no_gateway_has_is_refused():
    with pytest.raises(ValueError, match="gateway-3"):
        from_environment({"MODELYARD_GATEWAYS": "2", "MODELYARD_PROCESS": "gateway-3"})


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="MODELYARD_OVERDRAFT_PERCENT"):
        from_environment({"MODELYARD_OVERDRAFT_PERCENT": "much"})


def test_a_gateway_alone_reads_the_automatic_number(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))

    settings = from_environment(
        {"MODELYARD_GATEWAYS": "auto", "MODELYARD_PROCESS": "gateway-4"}
    )

    assert (settings.name, settings.gateways) == ("gateway-4", 4)


@pytest.mark.parametrize(
    "given",
    [
        {"MODELYARD_MAX_RELAYED_BYTES": str(1024**3)},
        {"MODELYARD_MAX_RELAYED_BYTES": str(8 * 1024**3), "MODELYARD_GATEWAYS": "8"},
    ],
)
def test_room_for_less_than_one_upload_for_each_gateway_is_refused(given):
    with pytest.raises(ValueError, match=r"MAX_UPLOAD_BYTES=1073741824 and its answer"):
        from_environment(given)


def test_by_default_there_is_room_for_uploads_of_any_number_of_gateways():
    settings = from_environment({"MODELYARD_GATEWAYS": "16"})

    assert settings.max_relayed_bytes == 16 * 2 * settings.max_upload_bytes
    assert from_environment({}).max_relayed_bytes == 8 * 1024**3


@pytest.mark.parametrize("text", ["many", "-1"])
def test_a_number_of_gateways_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="MODELYARD_GATEWAYS"):
        from_environment({"MODELYARD_GATEWAYS": text})
