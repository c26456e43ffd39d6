"""Read HTTP/1.1 answers strictly: any deviation is an error.

Clients differ in how they read answers that are nearly right (RFC 9112, 4 to 6).
"""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) ([\x20-\x7e]*)")
# No blank before the colon, one after it, none at the end.
FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?"
)
CHUNK_SIZE = re.compile(rb"[0-9a-f]{1,16}")
DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
# Only these may come more than once (RFC 9110, section 5.3; RFC 6265).
REPEATABLE = {"set-cookie", "vary", "www-authenticate", "link"}
CLOCK_SKEW_S = 300


class Wrong(AssertionError):
    """The bytes are not a valid answer."""


@dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)


def read_all(received: bytes, methods: list[str]) -> list[Answer]:
    """Read the answers to requests with these methods; no bytes may follow."""
    answers = []
    for method in methods:
        answer, received = _read(received, method)
        answers.append(answer)
        if answer.headers.get("connection") == "close":
            break
    _require(not received, f"bytes behind the last answer: {received[:100]!r}")
    _require(len(answers) == len(methods), "closed before the last answer")
    return answers


def _read(received: bytes, method: str) -> tuple[Answer, bytes]:
    head, end, rest = received.partition(b"\r\n\r\n")
    _require(end, f"no end of the head: {received[:100]!r}")
    first, *lines = head.split(b"\r\n")
    matched = STATUS_LINE.fullmatch(first)
    _require(matched, f"status line {first!r}")
    status = int(matched[1])
    _require(status >= 200, "an interim answer that nobody asked for")
    fields = [_field(line) for line in lines]
    _check(fields, status, method)
    headers = dict(fields)
    if method == "HEAD" or status in (204, 304):
        return Answer(status, fields, b""), rest
    if "transfer-encoding" in headers:
        body, rest = _read_chunks(rest)
    else:
        length = int(headers["content-length"])
        body, rest = rest[:length], rest[length:]
        _require(len(body) == length, "less than the length says")
    _require(not body or "content-type" in headers, "a body of no type")
    return Answer(status, fields, body), rest


def _field(line: bytes) -> tuple[str, str]:
    matched = FIELD.fullmatch(line)
    _require(matched, f"field {line!r}")
    return matched[1].decode().lower(), (matched[2] or b"").decode()


def _check(fields: list[tuple[str, str]], status: int, method: str) -> None:
    names = [name for name, _ in fields]
    twice = {name for name in names if names.count(name) > 1} - REPEATABLE
    _require(not twice, f"more than once: {twice}")
    headers = dict(fields)
    framing = [n for n in ("content-length", "transfer-encoding") if n in headers]
    if status in (204, 304):
        _require(not framing, f"{status} with {framing}")
    elif method == "HEAD":
        _require(len(framing) <= 1, f"framed by {framing}")
    else:
        _require(len(framing) == 1, f"framed by {framing}")
    _require(headers.get("content-length", "0").isdecimal(), "length is no number")
    _require(headers.get("transfer-encoding", "chunked") == "chunked", "coding")
    _require(headers.get("connection", "close") == "close", "connection")
    _require(DATE.fullmatch(headers.get("date", "")), f"date {headers.get('date')}")
    skew_s = parsedate_to_datetime(headers["date"]).timestamp() - time.time()
    _require(abs(skew_s) < CLOCK_SKEW_S, "a date of another time")
    _require(status != 405 or headers.get("allow"), "405 without Allow")
    _require(status != 401 or "www-authenticate" in headers, "401 without a challenge")
    _require(status not in (429, 503) or "retry-after" in headers, "no Retry-After")


def _read_chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        _require(end and CHUNK_SIZE.fullmatch(line), f"chunk size {line[:50]!r}")
        size = int(line, 16)
        _require(rest[size : size + 2] == b"\r\n", "no end of a chunk")
        body, rest = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, rest


def _require(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)
