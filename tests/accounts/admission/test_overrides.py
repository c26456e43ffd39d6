import pytest

from accounts.admission.overrides import (
    FURTHER_QUOTAS,
    OVERRIDABLE,
    check_overrides,
    check_quotas,
)
from accounts.models import Plan


@pytest.mark.parametrize(
    "given",
    [
        {"burst_requests": 0},
        {"burst_requests": -1},
        {"burst_requests": 2**31},
        {"burst_requests": None},
        {"burst_requests": "5"},
        {"burst_requests": 5.0},
        {"burst_requests": True},
        {"daily_quota": -1},
        {"monthly_quota": 2**63},
        {"name": "x"},
        [],
        None,
    ],
)
def test_overrides_that_no_gateway_could_keep_are_refused(given):
    with pytest.raises(ValueError, match=r"\S"):
        check_overrides(given)


def test_overrides_may_take_a_limit_away():
    check_overrides({"daily_quota": None, "max_concurrency": None, "max_body_bytes": 1})


@pytest.mark.parametrize(
    "given",
    [
        {"week": {}},
        {"day": 5},
        {"day": {"tokens": 5}},
        {"day": {"rows": -1}},
        {"month": {"rows": 2**63}},
        {"month": {"rows": None}},
        [],
    ],
)
def test_quotas_that_cannot_be_kept_are_refused(given):
    with pytest.raises(ValueError, match=r"\S"):
        check_quotas(given)


def test_quotas_of_every_period_and_unit_are_taken():
    units = {"requests": 0, "rows": 1, "compute_ms": 2, "shap_samples": 2**63 - 1}

    check_quotas({"day": units, "month": units})
    check_quotas({})


@pytest.mark.parametrize(
    "given",
    [
        {"further_quotas": {"week": {}}},
        {"further_quotas": {"day": {"tokens": 5}}},
        {"further_quotas": {"day": {"rows": -1}}},
        {"further_quotas": None},
        {"max_keys": -1},
        {"max_keys": None},
    ],
)
def test_exceptions_that_no_gateway_could_keep_are_refused(given):
    with pytest.raises(ValueError, match=r"\S"):
        check_overrides(given)


def test_a_quota_in_another_unit_may_be_given_or_taken_away():
    check_overrides({"further_quotas": {"day": {"compute_ms": 5}, "month": {}}})
    check_overrides({"further_quotas": {"month": {"shap_samples": None}}})


def test_every_limit_of_a_plan_may_be_otherwise_for_a_customer():
    about_the_plan = {"id", "name", "description", "retired", "quota_unit"}
    fields = {field.name for field in Plan._meta.concrete_fields}

    assert fields - about_the_plan == {*OVERRIDABLE, FURTHER_QUOTAS}
