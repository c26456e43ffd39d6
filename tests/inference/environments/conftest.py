import pytest

from inference.installation.home import Home


@pytest.fixture(autouse=True)
def own_home(settings, tmp_path):
    """Keep the environments and artifacts of tests apart."""
    settings.HOME = Home(tmp_path / "home")
    settings.HOME.prepare()
