from dataclasses import replace

import pytest
from django.core import checks

from config.checks.kinds import security
from config.checks.kinds.security import SettingsFacts

WELL = SettingsFacts(
    secret_key="".join(map(chr, range(40, 95))),
    allowed_hosts=("models.example.com",),
    public_url="https://models.example.com",
    https=True,
)
HSTS = checks.Warning("You have not set HSTS.\nMore.", id="security.W004")


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({}, [""]),
        ({"debug": True}, ["debug-on"]),
        ({"secret_key": "secret"}, ["secret-key-weak"]),
        ({"secret_key": "ab" * 30}, ["secret-key-weak"]),
        # It is not for the user who asks.
        ({"secret_key": ""}, [""]),
        ({"secret_key": "", "lost_key": "/home/secret_key"}, ["secret-key-lost"]),
        ({"allowed_hosts": ("*",)}, ["any-host"]),
        ({"allowed_hosts": ("other.example.com",)}, ["host-unknown"]),
        ({"allowed_hosts": (".example.com",)}, [""]),
        ({"public_url": "https://[::1]:8000", "allowed_hosts": ("[::1]",)}, [""]),
        ({"https": False}, ["https-off"]),
        ({"refused": "MODELYARD_PORT must be a number"}, ["settings-refused"]),
        ({"messages": (HSTS,)}, ["django-check"]),
        ({"messages": (checks.Warning("DEBUG", id="security.W018"),)}, [""]),
    ],
)
def test_each_fact_has_its_finding(facts, codes):
    found = security.judge(replace(WELL, **facts))

    assert [finding.code for finding in found] == codes


@pytest.mark.parametrize(
    ("listens_on", "codes"),
    [("127.0.0.1", [""]), ("localhost", [""]), ("0.0.0.0", ["https-off"])],
)
def test_only_what_others_can_reach_needs_https(listens_on, codes):
    facts = replace(
        WELL,
        https=False,
        public_url="http://models.example.com",
        listens_on=listens_on,
    )

    assert [finding.code for finding in security.judge(facts)] == codes


def test_a_setting_that_gateways_refuse_is_named(monkeypatch):
    monkeypatch.setenv("MODELYARD_MAX_CONNECTIONS", "many")

    codes = [finding.code for finding in security.look()]

    assert "settings-refused" in codes
