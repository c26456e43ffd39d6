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


@pytest.mark.parametrize("text", ["many", "-1"])
def test_a_number_of_gateways_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="MODELYARD_GATEWAYS"):
        from_environment({"MODELYARD_GATEWAYS": text})
