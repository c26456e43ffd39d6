"""Load the certificate of the gRPC port, reload it when renewed, warn of its expiry."""

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

# Log from this long before expiry; tools that renew certificates do so earlier.
_SOON_S = 14 * 86_400
_FIRST = "-----BEGIN CERTIFICATE-----"
_LAST = "-----END CERTIFICATE-----"
# Tags of ASN.1: the optional version, and a time with a year of two digits.
_VERSION, _UTC_TIME = 0xA0, 0x17
_Identity = tuple[tuple[int, int], ...]


class Certificates:
    """A TLS context whose certificate files may be replaced while it is in use."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Load the files; raises OSError if they are unreadable or do not match."""
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._clock = clock
        self._seen = self._identity()
        self._refused: _Identity | None = None
        self._said = ""
        self.context = self._read()
        self.not_after = self._end()
        self._say_end()

    def look(self) -> None:
        """Reload files that were replaced; open connections go on.

        If the files do not match, as when only one of two is written yet, nothing
        changes.
        """
        found = self._identity()
        if found not in (self._seen, self._refused):
            try:
                self._read()
                self._load(self.context)
            except OSError as error:
                self._refused = found
                logger.warning("grpc_certificate_unreadable", reason=str(error))
                return
            self._seen = found
            self.not_after = self._end()
            self._said = ""
            logger.info("grpc_certificate_reloaded")
        self._say_end()

    def _identity(self) -> _Identity:
        """Return a value that changes with each file; () if one is missing."""
        files = [self._certificate, self._key]
        if self._client_ca is not None:
            files.append(self._client_ca)
        try:
            return tuple(
                (it.st_ino, it.st_mtime_ns) for it in (f.stat() for f in files)
            )
        except OSError:
            # A file may be missing for a moment while it is replaced.
            return ()

    def _read(self) -> ssl.SSLContext:
        # TLS 1.2 at least, and no compression (RFC 9113, section 9.2).
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        context.set_alpn_protocols(["h2"])
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._certificate, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)

    def _end(self) -> float:
        return end_of(self._certificate.read_text())

    def _say_end(self) -> None:
        left_s = self.not_after - self._clock()
        if left_s > _SOON_S:
            return
        event = "grpc_certificate_ends_soon" if left_s > 0 else "grpc_certificate_ended"
        if event != self._said:
            self._said = event
            logger.error(event, days_left=round(left_s / 86_400, 1))


def end_of(pem: str) -> float:
    """Return when the first certificate of a PEM file ends (RFC 5280, section 4.1).

    A package that reads certificates would be a fifth of the gateway's image.
    """
    end = pem.index(_LAST) + len(_LAST)
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index(_FIRST) : end])
    _, at, _ = _element(der, 0)  # certificate
    _, at, _ = _element(der, at)  # what is signed
    tag, _, after = _element(der, at)
    if tag == _VERSION:
        at = after
    for _ in range(3):  # serial number, signature, issuer
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at)  # validity
    _, _, at = _element(der, at)  # its begin
    tag, at, after = _element(der, at)
    text = der[at:after].decode()
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return an element's tag, and where its contents begin and end."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[at : at + count]), at + count
    return tag, at, at + length
