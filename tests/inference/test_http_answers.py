"""Test that the strict reader of HTTP answers is strict."""

from email.utils import formatdate

import pytest

from tests.inference.http_answers import Wrong, read_all

# Replaced by the time of reading, which may be minutes later.
NOW = b"NOW"
DATE = "date: NOW"
PLAIN = "content-type: text/plain"


def answer(*lines, status="200 OK", body=b""):
    head = "\r\n".join([f"HTTP/1.1 {status}", DATE, *lines, "", ""])
    return head.encode() + body


def read(received, methods):
    return read_all(received.replace(NOW, formatdate(usegmt=True).encode()), methods)


def test_right_answers_are_read():
    whole = answer(PLAIN, "content-length: 2", body=b"ok")
    chunked = answer(PLAIN, "transfer-encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n")
    bodiless = answer("content-length: 2"), answer(status="204 No Content")

    answers = read(b"".join([whole, chunked, *bodiless]), ["GET", "GET", "HEAD", "GET"])

    assert [it.body for it in answers] == [b"ok", b"ok", b"", b""]


WRONG = [
    answer(PLAIN, body=b"ok"),
    answer(PLAIN, "content-length: 2", "transfer-encoding: chunked", body=b"ok"),
    answer(PLAIN, "content-length: 2", "content-length: 2", body=b"ok"),
    answer(PLAIN, "content-length: 1", body=b"ok"),
    answer(PLAIN, "content-length: 3", body=b"ok"),
    answer(PLAIN, "content-length: +2", body=b"ok"),
    answer(PLAIN, "Content-Length : 2", body=b"ok"),
    answer(PLAIN, "content-length:2", body=b"ok"),
    answer("content-length: 2", body=b"ok"),
    answer(PLAIN, "transfer-encoding: chunked", body=b"2\nok\r\n0\r\n\r\n"),
    answer(PLAIN, "transfer-encoding: chunked", body=b"2\r\nok\r\n0\r\n"),
    answer("content-length: 0", status="204 No Content"),
    answer("content-length: 0", status="304 Not Modified"),
    answer("content-length: 0", status="405 Method Not Allowed"),
    answer("content-length: 0", status="999 Odd"),
    answer("content-length: 0", "date: today"),
    answer("content-length: 0", "x: a\nb"),
    answer("content-length: 0").replace(b"date", b"x-date"),
    answer("content-length: 0").replace(b"\r\n", b"\n"),
    b"",
]


@pytest.mark.parametrize("received", WRONG, ids=range(len(WRONG)))
def test_others_are_not(received):
    with pytest.raises(Wrong):
        read(received, ["GET"])
