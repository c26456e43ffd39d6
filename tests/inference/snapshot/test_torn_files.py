"""Processes start again after a kill or a power failure left a file half written.

Messages of the broker, segments of the spool, the engines' placement and the files that
gateways and controllers read have tests beside their modules.
"""

import os
import random
import subprocess
import sys

import pytest
from django.utils import timezone

from accounts.admission.shared_counts import SharedCounts
from config.demo import contents
from inference.controller.leadership import Predecessor
from inference.errors.api_error import ApiError, ErrorCode
from inference.installation.home import Home
from inference.jobs import version_choice
from tests.factories_jobs import sum_model, write_snapshot


def torn(content):
    """Cut a file's content near its beginning, its end, and at random between."""
    chance = random.Random(20261130)
    lengths = {0, 1, len(content) - 1, *(chance.randrange(len(content)) for _ in "123")}
    return [content[:length] for length in sorted(lengths)]


def secret_key_of(home):
    """Start Django with its own home, and ask for its key."""
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "from config.settings import SECRET_KEY as key\nprint(key)",
        ],
        env={**os.environ, "MODELYARD_HOME": str(home), "PYTHONPATH": "platform:."},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()


def test_a_secret_key_that_was_never_written_is_made_again(tmp_path):
    Home(tmp_path).secret_key.touch(mode=0o600)

    key = secret_key_of(tmp_path)

    assert len(key) == 50
    assert secret_key_of(tmp_path) == key
    assert Home(tmp_path).secret_key.stat().st_mode & 0o777 == 0o600


def test_jobs_wait_for_a_whole_snapshot(home):
    write_snapshot(sum_model())
    whole = home.snapshot.read_bytes()

    for content in torn(whole):
        home.snapshot.write_bytes(content)
        with pytest.raises(ApiError) as refused:
            version_choice.choose(
                "sum", version=None, sticky_key="", key_id="", allowed_models=()
            )
        assert refused.value.code is ErrorCode.MODEL_UNAVAILABLE

    write_snapshot(sum_model())
    chosen = version_choice.choose(
        "sum", version=None, sticky_key="", key_id="", allowed_models=()
    )
    assert chosen.model == "sum"


def test_the_demos_card_is_made_anew(home):
    for content in torn(b'{"base_url": "http://127.0.0.1:8000", "api_key": "k"}'):
        home.demo.write_bytes(content)

        assert contents.read_facts() == {}


def test_shared_counts_of_another_length_start_anew(tmp_path):
    path = tmp_path / "counts"
    SharedCounts(path)
    whole = path.stat().st_size

    for length in (0, 1, 4096, whole - 8):
        os.truncate(path, length)
        counts = SharedCounts(path)
        counts.lock()
        at = counts.find(7, 1, 2)
        counts.cells[at] += 1
        counts.unlock()

        assert path.stat().st_size == whole
        assert counts.cells[at] == 1


@pytest.mark.django_db
def test_a_controller_takes_over_from_one_whose_name_is_torn(home):
    for content in torn(b"3f0c3d8f7a2b4c59a6b1c2d3e4f50617"):
        home.controller.write_bytes(content)
        successor = Predecessor(home.controller, successor="new")
        try:
            successor.dismiss(now=timezone.now())
        finally:
            successor.close()

        assert home.controller.read_bytes() == b"new"
