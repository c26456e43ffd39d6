from datetime import UTC, datetime

import pytest

from inference.gateway.grpc.certificates import end_of
from tests.certificates import make


@pytest.mark.parametrize(
    "end",
    [
        datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC),
        # Written with a year of four digits.
        datetime(2071, 5, 6, 7, 8, 9, tzinfo=UTC),
    ],
)
def test_the_end_of_the_first_certificate_is_read(tmp_path, end):
    # Long enough for lengths of two bytes.
    certificate, _ = make(tmp_path, name="a" * 60, end=end)
    pem = certificate.read_text()

    assert end_of(f"# The leaf comes first.\n{pem}{pem}") == end.timestamp()
