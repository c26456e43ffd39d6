"""Operators see in the admin what `modelyard check` prints."""

import pytest
from django.contrib.auth.models import Group
from django.urls import reverse

from config.checks import running
from config.pages import check
from tests.factories import UserFactory


@pytest.fixture(autouse=True)
def no_report_of_another_test(monkeypatch):
    monkeypatch.setattr(check, "last", check.LastReport())


def sign_in(client, *groups, **facts):
    user = UserFactory.create(is_staff=True, **facts)
    user.groups.set(Group.objects.filter(name__in=groups))
    client.force_login(user)
    return client


@pytest.mark.django_db(transaction=True)
def test_the_page_shows_all_findings_and_the_dashboard_the_bad_ones(client):
    sign_in(client, is_superuser=True)

    whole = client.get(reverse("check")).content.decode()
    summary = client.get(reverse("check-summary")).content.decode()

    for title in ("Gateways", "Database", "Broker"):
        assert title in whole
    assert "Modelyard does not run here: no gateway answers." in whole
    assert "sudo systemctl start modelyard" in whole
    assert "has all migrations and can be written." in whole
    assert "Modelyard does not run here: no gateway answers." in summary
    assert "has all migrations" not in summary


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("group", "status"),
    [("operators", 200), ("data scientists", 403), ("account managers", 403)],
)
def test_only_operators_and_administrators_see_it(client, monkeypatch, group, status):
    report = running.run([])
    monkeypatch.setattr("config.pages.check.running.run", lambda: report)
    sign_in(client, group)

    dashboard = client.get(reverse("admin:index")).content.decode()

    assert client.get(reverse("check")).status_code == status
    assert client.get(reverse("check-summary")).status_code == status
    assert (reverse("check-summary") in dashboard) == (status == 200)


@pytest.mark.django_db
def test_strangers_are_asked_to_sign_in(client):
    assert client.get(reverse("check")).status_code == 302
