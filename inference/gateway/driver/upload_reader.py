"""Read uploaded files for predictions, over the site's internal socket."""

from pathlib import Path

import httpx
import structlog

from inference.codecs.files import uploaded
from inference.codecs.files.uploaded import UploadedFile
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.bounds import UploadSlots
from inference.gateway.owners import Owner
from inference.installation.sockets import http_over
from inference.prediction.effects import ReadUpload

logger = structlog.get_logger(__name__)

# Each read holds a whole file in memory.
_AT_ONCE = 4
_KEPT_S = 1.0
_TIMEOUT_S = 10.0
_REFUSALS = {404: uploaded.not_found, 409: uploaded.not_sent, 410: uploaded.gone}


class InputFiles:
    """Ask the site for files: only it knows where they lie and who owns them."""

    def __init__(
        self,
        *,
        socket: Path | None = None,
        at_once: int = _AT_ONCE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Read at most `at_once` files together: leases need the site's threads too."""
        at_once = min(at_once, _AT_ONCE)
        self.turns = UploadSlots(at_once)
        connections = httpx.Limits(
            max_connections=at_once,
            max_keepalive_connections=2,
            keepalive_expiry=_KEPT_S,
        )
        self._client = httpx.AsyncClient(
            transport=transport or http_over(socket or Path(), connections),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    async def read(self, asked: ReadUpload) -> UploadedFile:
        """Read a whole file; raises ApiError."""
        customer = Owner(str(asked.customer_id), is_customer=True)
        try:
            async with self.turns.turn(
                # A client that leaves cancels the task that waits.
                customer,
                timeout_s=_TIMEOUT_S,
                has_left=lambda: False,
            ):
                response = await self._client.get(
                    f"http://site/internal/uploads/{asked.upload_id}",
                    params={
                        "customer": asked.customer_id,
                        "max_bytes": asked.max_bytes,
                    },
                    headers={"host": "localhost"},
                )
        except httpx.HTTPError as error:
            logger.warning(
                "upload_unreadable",
                reason=error,
                upload=asked.upload_id,
                customer_id=asked.customer_id,
            )
            raise _away() from error
        if response.status_code == 413:
            raise uploaded.too_large(asked.max_bytes)
        refusal = _REFUSALS.get(response.status_code)
        if refusal is not None:
            raise refusal()
        if response.status_code != 200:
            logger.warning(
                "upload_unreadable",
                status=response.status_code,
                upload=asked.upload_id,
                customer_id=asked.customer_id,
            )
            raise _away()
        return UploadedFile(response.content, response.headers["content-type"])

    async def close(self) -> None:
        await self._client.aclose()


def _away() -> ApiError:
    return ApiError(
        ErrorCode.OVERLOADED,
        "Uploaded files cannot be read right now. Try again.",
        retry_after_s=5.0,
    )
