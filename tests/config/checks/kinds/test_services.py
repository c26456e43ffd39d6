"""Servers that others run: each outage is a finding, and none takes long."""

import socket
import sqlite3

import pytest
from django.core.cache import caches

from config.checks.kinds import broker, mail, mlflow
from config.checks.kinds import cache as cache_check
from registry.models import RegistrySync

pytestmark = pytest.mark.django_db
SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def codes(kind):
    return [finding.code for finding in kind.look()]


def test_a_cache_that_keeps_things_is_well():
    assert codes(cache_check) == [""]


@pytest.mark.parametrize(
    ("url", "code"),
    [("", "cache-files-failing"), ("redis://host:6379/0", "cache-failing")],
)
def test_a_cache_that_fails_is_named(monkeypatch, settings, url, code):
    def fail(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(type(caches["default"]), "set", fail)
    settings.CACHE_URL = url

    [found] = cache_check.look()

    assert found.code == code
    assert "database or disk is full" in found.sentence


def test_a_broker_that_answers_is_well():
    assert codes(broker) == [""]


def test_a_broker_that_is_away_is_named(closed_port, settings):
    from celery import current_app

    conf = current_app.conf
    before = conf.broker_url, conf.broker_read_url, conf.broker_transport
    url = f"amqp://127.0.0.1:{closed_port}//"
    conf.broker_url = conf.broker_read_url = url
    conf.broker_transport = None
    try:
        [found] = broker.look()
    finally:
        conf.broker_url, conf.broker_read_url, conf.broker_transport = before

    assert found.code == "broker-unreachable"
    assert "refused" in found.sentence


def test_messages_that_nobody_reads_are_counted():
    [found] = broker.judge(90, running=True)

    assert found.code == "queue-unread"
    assert broker.judge(3, running=True)[0].code == ""
    # They wait for the start.
    assert broker.judge(90, running=False)[0].code == ""


def test_mail_to_the_log_is_well_in_a_demo_only(settings):
    settings.MAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

    assert codes(mail) == [""]
    settings.MODELYARD_ENVIRONMENT = "production"
    assert codes(mail) == ["mail-unset"]


def test_a_mail_server_that_is_away_is_named(closed_port, settings):
    settings.MAIL_BACKEND = SMTP
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", closed_port

    [found] = mail.look()

    assert found.code == "mail-refused"
    assert f"127.0.0.1:{closed_port}" in found.sentence


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:secret@127.0.0.1:{port}",
        "postgresql+psycopg://user:secret@127.0.0.1:{port}/mlflow",
    ],
)
def test_mlflow_that_is_away_is_named_without_its_password(uri, closed_port, settings):
    settings.MLFLOW_TRACKING_URI = uri.format(port=closed_port)

    [found] = mlflow.look()

    assert found.code == "mlflow-unreachable"
    assert "secret" not in found.sentence + found.mend


def test_a_failed_sync_is_named(tmp_path, settings):
    file = tmp_path / "mlflow.db"
    file.touch()
    settings.MLFLOW_TRACKING_URI = f"sqlite:///{file}"
    RegistrySync.objects.create(pk=1, error="401: not known here\nmore")

    [found] = mlflow.look()

    assert found.sentence == ("The last sync with MLflow failed: 401: not known here.")
