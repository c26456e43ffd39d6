import pytest
from django.core.cache import cache


@pytest.fixture(autouse=True)
def _empty_cache():
    """Begin each test with no calls counted."""
    cache.clear()


@pytest.fixture(autouse=True)
def _fast_passwords(settings):
    """Hash people's passwords quickly: no test here is about their strength."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def call(client):
    """Call the API with a key's token."""

    def get(path, token, **kwargs):
        return client.get(path, headers={"Authorization": f"Bearer {token}"}, **kwargs)

    return get
