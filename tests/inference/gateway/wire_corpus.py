"""Requests as bytes that servers read differently, or that all should refuse.

The recorded verdicts are the answers of nginx (in front of an application) and uvicorn
(with h11): statuses in order, `-` if nothing more came and the connection stayed open,
`x` if it was closed without an answer. A server may close after any answer.
"""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    sent: bytes


def get(*lines, target=b"/", version=b"HTTP/1.1", host=True, end=b"\r\n"):
    """Write a head without a body."""
    hosts = [b"Host: x"] if host else []
    return end.join([b"GET %b %b" % (target, version), *hosts, *lines, b"", b""])


def post(*lines, body=b""):
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: x", *lines, b"", b""]) + body


CHUNKED = b"Transfer-Encoding: chunked"
SECOND = get()


def chunked(body, *lines):
    return post(CHUNKED, *lines, body=body)


WHOLE = b"1\r\na\r\n0\r\n\r\n"


def _length(value, body=b"a"):
    return post(b"Content-Length: " + value, body=body)


def _coding(value):
    return post(b"Transfer-Encoding: " + value, body=WHOLE)


CASES = [
    # Plain requests, to see that each server answers at all.
    Case("get", get()),
    Case("two gets", get() + get()),
    Case("length", _length(b"1")),
    Case("length, then another", _length(b"1") + SECOND),
    Case("chunked", chunked(WHOLE)),
    Case("chunked, then another", chunked(WHOLE) + SECOND),
    # Headers that frame a body.
    Case("length and chunked", post(b"Content-Length: 1", CHUNKED, body=WHOLE)),
    Case("chunked and length", post(CHUNKED, b"Content-Length: 11", body=WHOLE)),
    Case("two lengths", post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab")),
    Case(
        "same length twice", post(b"Content-Length: 1", b"Content-Length: 1", body=b"a")
    ),
    Case("list of lengths", _length(b"1, 1")),
    Case("length with plus", _length(b"+1")),
    Case("length with minus", _length(b"-1")),
    Case("length in hex", _length(b"0x1")),
    Case("length with zero", _length(b"01")),
    Case("length with underscore", _length(b"1_0", b"a" * 10)),
    Case("length with dot", _length(b"1.0")),
    Case("length with blank inside", _length(b"1 0", b"a" * 10)),
    Case("length empty", _length(b"", b"")),
    Case("length of letters", _length(b"a")),
    Case("length too long", _length(b"9" * 30)),
    Case("length over 64 bits", _length(b"18446744073709551617")),
    Case("length in arabic digits", _length(b"\xd9\xa1")),
    Case("length with blank before colon", post(b"Content-Length : 1", body=b"a")),
    Case("length name with underscore", post(b"Content_Length: 1", body=SECOND)),
    Case("get with length", get(b"Content-Length: 1") + b"a" + SECOND),
    Case("chunked twice", post(CHUNKED, CHUNKED, body=WHOLE)),
    Case("chunked, chunked", _coding(b"chunked, chunked")),
    Case("identity", post(b"Transfer-Encoding: identity")),
    Case(
        "identity and length",
        post(b"Transfer-Encoding: identity", b"Content-Length: 1", body=b"a"),
    ),
    Case("gzip, chunked", _coding(b"gzip, chunked")),
    Case("chunked, gzip", _coding(b"chunked, gzip")),
    Case("unknown coding", _coding(b"xchunked")),
    Case("coding in capitals", _coding(b"Chunked")),
    Case("coding with parameter", _coding(b"chunked;x=1")),
    Case("coding in quotes", _coding(b'"chunked"')),
    Case("coding with tab", _coding(b"\tchunked")),
    Case("coding with vertical tab", _coding(b"\x0bchunked")),
    Case(
        "coding with blank before colon",
        post(b"Transfer-Encoding : chunked", body=WHOLE),
    ),
    Case("coding folded", post(b"Transfer-Encoding:\r\n chunked", body=WHOLE)),
    Case("coding empty", post(b"Transfer-Encoding:", body=b"")),
    Case(
        "coding in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + WHOLE,
    ),
    # Chunks.
    Case("chunk size in capitals", chunked(b"A\r\n" + b"a" * 10 + b"\r\n0\r\n\r\n")),
    Case("chunk size with zeros", chunked(b"0001\r\na\r\n0\r\n\r\n")),
    Case("chunk size with 0x", chunked(b"0x1\r\na\r\n0\r\n\r\n")),
    Case("chunk size with plus", chunked(b"+1\r\na\r\n0\r\n\r\n")),
    Case("chunk size with minus", chunked(b"-1\r\na\r\n0\r\n\r\n")),
    Case("chunk size with blank before", chunked(b" 1\r\na\r\n0\r\n\r\n")),
    Case("chunk size with blank behind", chunked(b"1 \r\na\r\n0\r\n\r\n")),
    Case(
        "chunk size with underscore", chunked(b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n")
    ),
    Case("chunk size empty", chunked(b"\r\na\r\n0\r\n\r\n")),
    Case("chunk size of letters", chunked(b"g\r\na\r\n0\r\n\r\n")),
    Case("chunk size over 64 bits", chunked(b"10000000000000001\r\na\r\n0\r\n\r\n")),
    Case("chunk size very long", chunked(b"0" * 5000 + b"1\r\na\r\n0\r\n\r\n")),
    Case("chunk extension", chunked(b"1;x=y\r\na\r\n0\r\n\r\n")),
    Case("chunk extension in quotes", chunked(b'1;x="y;z"\r\na\r\n0\r\n\r\n')),
    Case("chunk extension without name", chunked(b"1;\r\na\r\n0\r\n\r\n")),
    Case("chunk extension with line feed", chunked(b"1;x\na\r\n0\r\n\r\n")),
    Case("chunk extension with carriage return", chunked(b"1;x\ry\r\na\r\n0\r\n\r\n")),
    Case(
        "chunk extension very long",
        chunked(b"1;" + b"x" * 70_000 + b"\r\na\r\n0\r\n\r\n"),
    ),
    Case("chunk extension with blanks", chunked(b"1 ; x\r\na\r\n0\r\n\r\n")),
    Case("chunk size with line feed", chunked(b"1\na\r\n0\r\n\r\n")),
    Case("chunk end with line feed", chunked(b"1\r\na\n0\r\n\r\n")),
    Case("chunk end missing", chunked(b"1\r\na0\r\n\r\n")),
    Case("chunk longer than said", chunked(b"1\r\nab\r\n0\r\n\r\n")),
    Case("chunk shorter than said", chunked(b"5\r\na\r\n0\r\n\r\n")),
    Case("last chunk with line feed", chunked(b"1\r\na\r\n0\n\n")),
    Case("last chunk without end", chunked(b"1\r\na\r\n0\r\n")),
    Case("trailer", chunked(b"1\r\na\r\n0\r\nX: y\r\n\r\n")),
    Case("trailer that frames", chunked(b"1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n")),
    Case("trailer without colon", chunked(b"1\r\na\r\n0\r\nX\r\n\r\n")),
    Case("trailer with line feed", chunked(b"1\r\na\r\n0\r\nX: y\n\r\n")),
    Case("trailer, then another", chunked(b"0\r\nX: y\r\n\r\n") + SECOND),
    # Lines.
    Case("line feeds only", get(end=b"\n")),
    Case("line feed in head", b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n"),
    Case("line feed at end of head", b"GET / HTTP/1.1\r\nHost: x\r\n\n"),
    Case("carriage return in head", b"GET / HTTP/1.1\rHost: x\r\n\r\n"),
    Case("carriage return in value", get(b"X: a\rb")),
    Case("two carriage returns", b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n"),
    Case("empty line before", b"\r\n" + get()),
    Case("line feed before", b"\n" + get()),
    Case("many empty lines before", b"\r\n" * 50 + get()),
    Case("blank before", b" " + get()),
    Case("folded value", get(b"X: a", b" b")),
    Case("folded with tab", get(b"X: a", b"\tb")),
    Case("folded first line", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    Case("folded host", b"GET / HTTP/1.1\r\nHost:\r\n x\r\n\r\n"),
    Case("name without colon", get(b"X")),
    Case("name empty", get(b": x")),
    Case("name with blank behind", get(b"X : y")),
    Case("name with blank inside", get(b"X Y: z")),
    Case("name with tab", get(b"X\t: y")),
    Case("name with null", get(b"X\x00: y")),
    Case("name with high byte", get(b"X\xe9: y")),
    Case("name with parentheses", get(b"X(y): z")),
    Case("name with underscore", get(b"X_Y: z")),
    Case("value with null", get(b"X: a\x00b")),
    Case("value with control", get(b"X: a\x01b")),
    Case("value with delete", get(b"X: a\x7fb")),
    Case("value with high byte", get(b"X: \xe9")),
    Case("value empty", get(b"X:")),
    Case("value without blank", get(b"X:y")),
    Case("very many headers", get(*[b"X: y"] * 5000)),
    Case("head of 100 KB", get(b"X: " + b"y" * 100_000)),
    # First lines.
    Case("HTTP/1.0", get(version=b"HTTP/1.0")),
    Case("HTTP/0.9", b"GET /\r\n"),
    Case("HTTP/0.9 in words", get(version=b"HTTP/0.9")),
    Case("HTTP/1.2", get(version=b"HTTP/1.2")),
    Case("HTTP/2.0", get(version=b"HTTP/2.0")),
    Case("HTTP/1.10", get(version=b"HTTP/1.10")),
    Case("HTTP/01.1", get(version=b"HTTP/01.1")),
    Case("http in small letters", get(version=b"http/1.1")),
    Case("HTTP without version", get(version=b"HTTP")),
    Case("other protocol", get(version=b"ICE/1.0")),
    Case("rtsp", b"DESCRIBE / RTSP/1.0\r\nHost: x\r\n\r\n"),
    Case("start of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Case("start of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40),
    Case("two blanks in first line", b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("tab in first line", b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("blank behind first line", b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n"),
    Case("no target", b"GET HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("no method", b"/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("method in small letters", b"get / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("method of signs", b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("unknown method", b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("connect", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("trace", b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"),
    # Targets.
    Case("absolute target", get(target=b"http://x/")),
    Case("absolute target of another host", get(target=b"http://y/")),
    Case("absolute target without path", get(target=b"http://x")),
    Case("absolute target without host", get(target=b"http:///")),
    Case("absolute target with user", get(target=b"http://a:b@x/")),
    Case("absolute target of other scheme", get(target=b"ftp://x/")),
    Case("target without slash", get(target=b"x")),
    Case("asterisk", get(target=b"*")),
    Case("options asterisk", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
    Case("authority target", get(target=b"x:80")),
    Case("target with fragment", get(target=b"/#x")),
    Case("target with null", get(target=b"/\x00")),
    Case("target with control", get(target=b"/\x01")),
    Case("target with delete", get(target=b"/\x7f")),
    Case("target with high byte", get(target=b"/\xe9")),
    Case("target with quotes", get(target=b'/"<>')),
    Case("target with backslash", get(target=b"/\\")),
    Case("target with encoded null", get(target=b"/%00")),
    Case("target with half an escape", get(target=b"/%")),
    Case("target with bad escape", get(target=b"/%zz")),
    Case("target above root", get(target=b"/../x")),
    Case("target of 100 KB", get(target=b"/" + b"x" * 100_000)),
    # Hosts.
    Case("no host", get(host=False)),
    Case("no host in HTTP/1.0", get(host=False, version=b"HTTP/1.0")),
    Case("two hosts", get(b"Host: y")),
    Case("same host twice", get(b"Host: x")),
    Case("host empty", get(b"Host:", host=False)),
    Case("host with port", get(b"Host: x:80", host=False)),
    Case("host with bad port", get(b"Host: x:y", host=False)),
    Case("host with path", get(b"Host: x/y", host=False)),
    Case("host with user", get(b"Host: a@x", host=False)),
    Case("host with blank", get(b"Host: x y", host=False)),
    Case("host with comma", get(b"Host: x,y", host=False)),
    Case("host with null", get(b"Host: x\x00", host=False)),
    Case("host of IPv6", get(b"Host: [::1]:80", host=False)),
    Case("host with open bracket", get(b"Host: [::1", host=False)),
    # Connections.
    Case("close", get(b"Connection: close") + SECOND),
    Case("close among others", get(b"Connection: x, Close") + SECOND),
    Case("keep-alive in HTTP/1.0", get(b"Connection: keep-alive", version=b"HTTP/1.0")),
    Case("upgrade", get(b"Connection: Upgrade", b"Upgrade: websocket")),
    Case(
        "upgrade to h2c",
        get(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: x",
        ),
    ),
    Case(
        "upgrade with a body",
        post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 1", body=b"a")
        + SECOND,
    ),
    Case(
        "upgrade with chunks",
        post(b"Connection: Upgrade", b"Upgrade: h2c", CHUNKED, body=WHOLE) + SECOND,
    ),
    Case("expect", post(b"Expect: 100-continue", b"Content-Length: 1", body=b"a")),
    Case("expect something else", post(b"Expect: x", b"Content-Length: 1", body=b"a")),
    Case("many in one packet", get() * 50),
    Case("rubbish behind", get() + b"\x00\x01"),
    Case("half a head", b"GET / HTTP/1.1\r\nHost: x\r\n"),
    Case("half a body", _length(b"5")),
]
