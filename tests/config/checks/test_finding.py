import pytest

from config.checks.finding import first_line, in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 seconds"), (119, "119 seconds"), (180, "3 minutes"), (7200, "2 hours")],
)
def test_times_are_written_in_their_largest_unit(seconds, words):
    assert in_words(seconds) == words


def test_an_error_becomes_part_of_a_sentence():
    refused = ConnectionRefusedError(111, "Connection refused")

    assert first_line(refused) == "Connection refused"
    assert first_line("No such thing.\nTrace") == "No such thing"
    assert first_line(TimeoutError()) == "TimeoutError"
