import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.codecs import multipart
from inference.errors.api_error import ApiError

TYPE = b'multipart/form-data; boundary="cut"'


def form(*parts):
    pieces = [
        b"--cut\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + content + b"\r\n"
        for headers, content in parts
    ]
    return b"".join(pieces) + b"--cut--\r\n"


def test_parts_come_in_order_with_names_and_types():
    body = form(
        (
            [
                b'Content-Disposition: form-data; name="a"; filename="x.png"',
                b"content-type: Image/PNG; q=1",
            ],
            b"\x00--cut\r\n\xff",
        ),
        ([b'Content-Disposition: form-data; name="options"'], b"{}"),
    )

    first, second = multipart.parse(body, TYPE)

    assert (first.name, first.is_file, first.media_type) == ("a", True, "image/png")
    assert first.content == b"\x00--cut\r\n\xff"
    assert (second.name, second.is_file, second.content) == ("options", False, b"{}")


def test_preamble_and_empty_parts_are_fine():
    body = b"hello\r\n" + form(([b'Content-Disposition: form-data; name="a"'], b""))

    [part] = multipart.parse(body, TYPE)

    assert part.content == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--cut",
        b"--cut\r\n",
        b"--cut\r\nno headers\r\n--cut--",
        b"--cut\r\nContent-Disposition: form-data\r\n\r\nx\r\n--cut--",
        b'--cut\r\nContent-Disposition: form-data; name="a"\r\n\r\nx',
        b"--other\r\n\r\n--other--",
    ],
)
def test_malformed_bodies_are_refused(body):
    with pytest.raises(ApiError) as caught:
        multipart.parse(body, TYPE)

    assert caught.value.status == 400


def test_missing_boundary_is_refused():
    with pytest.raises(ApiError):
        multipart.parse(b"", b"multipart/form-data")


def test_parts_are_counted():
    part = ([b'Content-Disposition: form-data; name="a"'], b"")

    with pytest.raises(ApiError) as caught:
        multipart.parse(form(*[part] * (multipart.MAX_PARTS + 1)), TYPE)

    assert caught.value.status == 413


@given(
    st.binary(max_size=40)
    | st.lists(
        st.sampled_from(
            [
                b"--cut",
                b"\r\n",
                b"--",
                b'Content-Disposition: form-data; name="a"',
                b"x",
            ]
        ),
        max_size=12,
    ).map(b"".join)
)
def test_no_bytes_raise_anything_but_a_refusal(body):
    with contextlib.suppress(ApiError):
        multipart.parse(body, TYPE)
