"""Ask holders of leases to give up unspent units."""

import http.client
import socket

import msgspec
import structlog
from django.conf import settings

from accounts.admission.limits import Recall, Recalled

# A holder that takes longer keeps its units: the asker waits for all holders.
_TIMEOUT_S = 0.5
_decoder = msgspec.json.Decoder(Recalled)

logger = structlog.get_logger(__name__)


def ask(holder: str, recall: Recall) -> Recalled | None:
    """Recall units from a gateway, over the Unix socket that is named after it."""
    for path in settings.HOME.run.glob(f"*.{holder}.sock"):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(_TIMEOUT_S)
            connection.sock.connect(str(path))
            connection.request(
                "POST",
                "/recall",
                body=msgspec.json.encode(recall),
                headers={"content-type": "application/json"},
            )
            response = connection.getresponse()
            if response.status == 200:
                return _decoder.decode(response.read())
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            logger.warning("recall_failed", holder=holder, reason=error)
        finally:
            connection.close()
    return None
