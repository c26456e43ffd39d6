import pytest

from config.middleware import site_counts
from inference.metrics.counts import Counts

pytestmark = pytest.mark.django_db


@pytest.fixture
def counted(monkeypatch):
    found = Counts()
    monkeypatch.setattr(site_counts, "HERE", found)
    return lambda: {it.labels: it.value for it in found.numbers()}


def test_requests_are_counted_by_view_and_status(client, counted):
    client.get("/admin/login/")
    client.get("/admin/login/")
    client.get("/healthz")

    assert counted() == {
        ("config.pages.login.login", "200"): 2,
        ("inference.api.health.alive", "200"): 1,
    }


def test_a_path_that_does_not_exist_makes_no_series_of_its_own(client, counted):
    client.get("/no/such/path")
    client.get("/nor/this")

    assert counted() == {("none", "404"): 2}
