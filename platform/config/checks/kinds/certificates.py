"""Look at certificates: gRPC's file, and that of the public URL."""

import os
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from django.conf import settings

from config.checks import impatient
from config.checks.finding import Finding, fault, first_line, or_well, warning, well
from inference.gateway.grpc.certificates import Certificates

TITLE = "Certificates"
_SOON_S = 14 * 86_400.0

ENDED = fault(
    "certificate-ended",
    "The certificate of {what} ended on {date}.",
    cost="Clients refuse to connect.",
    mend="sudo certbot renew  # or put a new one in its place",
)
ENDS_SOON = warning(
    "certificate-ends-soon",
    "The certificate of {what} ends on {date}.",
    cost="Clients refuse to connect from then on.",
    mend="sudo certbot renew  # or put a new one in its place",
)
UNREADABLE = fault(
    "grpc-certificate-unreadable",
    "gRPC's certificate, key and client CA cannot be used: {reason}.",
    cost="`serve` does not start; a gateway that runs keeps the former ones.",
    mend="MODELYARD_GRPC_CERTIFICATE_FILE, MODELYARD_GRPC_KEY_FILE and "
    "MODELYARD_GRPC_CLIENT_CA_FILE must be PEM files that belong together.",
)
REFUSED = fault(
    "public-certificate-refused",
    "The certificate of {what} is refused: {reason}.",
    cost="Browsers and clients refuse to connect, unless they know its authority.",
    mend="Install a certificate for that name, with the chain up to its authority.",
)
URL_SILENT = warning(
    "public-url-silent",
    "{what} does not answer from here: {reason}.",
    cost="If it is so everywhere, nobody reaches Modelyard.",
    mend="sudo nginx -t && sudo systemctl restart nginx",
)
PROBLEMS = (ENDED, ENDS_SOON, UNREADABLE, REFUSED, URL_SILENT)


@dataclass(frozen=True, slots=True)
class Certificate:
    what: str
    # Seconds since the epoch; None: it was not seen.
    ends_at: float | None = None
    # Why it is refused.
    refused: str = ""
    # Why nobody answers.
    silent: str = ""


def look() -> list[Finding]:
    found = []
    public = urlsplit(settings.MODELYARD_PUBLIC_URL)
    seen = []
    try:
        if (ends_at := _grpc_end()) is not None:
            seen.append(Certificate("gRPC", ends_at))
    except (OSError, ValueError) as error:
        found.append(UNREADABLE.found(reason=first_line(error)))
    if public.scheme == "https" and public.hostname:
        port = public.port or 443
        seen.append(served(public.hostname, port, what=settings.MODELYARD_PUBLIC_URL))
    now = time.time()
    found += judge(seen, now=now)
    if not seen and not found:
        return [well("Neither gRPC nor the public URL has one.")]
    return or_well(found, "All are valid for two weeks at least.")


def judge(certificates: list[Certificate], *, now: float) -> list[Finding]:
    found = []
    for it in certificates:
        if it.silent:
            found.append(URL_SILENT.found(what=it.what, reason=it.silent))
            continue
        if it.ends_at is not None and it.ends_at < now + _SOON_S:
            problem = ENDED if it.ends_at < now else ENDS_SOON
            date = datetime.fromtimestamp(it.ends_at, UTC).date()
            found.append(problem.found(what=it.what, date=date))
            if it.ends_at < now:
                continue
        if it.refused:
            found.append(REFUSED.found(what=it.what, reason=it.refused))
    return found


def _grpc_end() -> float | None:
    """Return when gRPC's certificate ends; raises OSError or ValueError."""
    names = ("CERTIFICATE", "KEY", "CLIENT_CA")
    # Gateways read these, and no other part of the site does.
    given = [os.environ.get(f"MODELYARD_GRPC_{name}_FILE", "") for name in names]
    certificate, key, client_ca = (Path(it) if it else None for it in given)
    if certificate is None or key is None:
        return None
    return Certificates(certificate, key, client_ca).not_after


def served(host: str, port: int, *, what: str) -> Certificate:
    """Fetch the certificate that a server shows, then see whether it is believed."""
    lax = ssl.create_default_context()
    lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
    try:
        shown = _handshake(host, port, lax)
    except OSError as error:
        return Certificate(what, silent=first_line(error))
    ends_at = x509.load_der_x509_certificate(shown).not_valid_after_utc.timestamp()
    try:
        _handshake(host, port, ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        return Certificate(what, ends_at, refused=error.verify_message.rstrip("."))
    except OSError as error:
        return Certificate(what, silent=first_line(error))
    return Certificate(what, ends_at)


def _handshake(host: str, port: int, context: ssl.SSLContext) -> bytes:
    address = (host, port)
    with (
        socket.create_connection(address, impatient.TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""
