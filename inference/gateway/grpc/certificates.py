"""Load the certificate of the gRPC port, reload it when renewed, warn of its expiry."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

# Log from this long before expiry; tools that renew certificates do so earlier.
_SOON_S = 14 * 86_400
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
        # Imported here, because most gateways have no certificate.
        from cryptography import x509

        leaf, *_ = x509.load_pem_x509_certificates(self._certificate.read_bytes())
        return leaf.not_valid_after_utc.timestamp()

    def _say_end(self) -> None:
        left_s = self.not_after - self._clock()
        if left_s > _SOON_S:
            return
        event = "grpc_certificate_ends_soon" if left_s > 0 else "grpc_certificate_ended"
        if event != self._said:
            self._said = event
            logger.error(event, days_left=round(left_s / 86_400, 1))
