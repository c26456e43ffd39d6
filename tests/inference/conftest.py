"""What the tests of `inference` share."""

import pytest

from inference.home import Home


@pytest.fixture
def home(tmp_path, settings):
    """An installation's files of the test's own."""
    settings.HOME = Home(tmp_path / "home")
    settings.HOME.prepare()
    return settings.HOME
