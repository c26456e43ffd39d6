import hashlib
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.admission import key_format


def test_token_carries_its_mode_and_id():
    key = key_format.generate("test")

    assert re.fullmatch(r"my_test_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", key.token)
    assert key.token.split("_")[2] == key.key_id


def test_parsing_gives_back_id_and_digest_of_the_whole_token():
    key = key_format.generate("live")

    parsed = key_format.parse(key.token.encode())

    assert parsed is not None
    assert parsed.key_id == key.key_id
    assert parsed.digest == key.digest == hashlib.sha256(key.token.encode()).digest()


def test_no_two_keys_are_alike():
    keys = [key_format.generate("live") for _ in range(500)]

    assert len({key.token for key in keys}) == 500
    assert len({key.key_id for key in keys}) == 500


@given(position=st.integers(0, 69), letter=st.sampled_from(string.printable))
def test_any_single_mistyped_character_is_noticed(position: int, letter: str):
    token = key_format.generate("live").token
    mistyped = token[:position] + letter + token[position + 1 :]

    assert (key_format.parse(mistyped.encode()) is None) == (mistyped != token)


@pytest.mark.parametrize(
    "damage",
    [
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token.replace("my_", "sk_"),
        lambda token: token.upper(),
        lambda _: "",
    ],
)
def test_a_token_of_another_shape_is_refused(damage):
    token = key_format.generate("live").token

    assert key_format.parse(damage(token).encode()) is None


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused_without_an_exception(junk: bytes):
    assert key_format.parse(junk) is None


def test_a_new_key_does_not_show_its_token_in_its_repr():
    key = key_format.generate("live")

    assert key.token not in repr(key)
    assert key.key_id in repr(key)


@pytest.mark.parametrize("mode", ["live", "test"])
def test_what_scanners_look_for_finds_every_key_and_no_part_of_one(mode):
    token = key_format.generate(mode).token
    leaked = f'client = Client(key="{token}")'

    assert re.findall(key_format.SCANNED_FOR, leaked) == [token]
    assert re.search(key_format.SCANNED_FOR, token[:-1]) is None
    assert re.search(key_format.SCANNED_FOR, f"{token}x") is None


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (b"explain=true", False),
        (b"api_key=x", True),
        (b"explain=1&API-KEY=x", True),
        (b"x-api-key=x", True),
        (b"q=my_test_1", True),
        (b"q=apikeys", False),
        (b"monkey=1", False),
    ],
)
def test_keys_in_queries_are_noticed(query, holds):
    assert key_format.holds_key(query) is holds


def test_the_expression_for_scanners_is_published():
    page = Path("docs/keys.md").read_text()

    assert f"\n{key_format.SCANNED_FOR}\n" in page
