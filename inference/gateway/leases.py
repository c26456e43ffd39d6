"""Fetching quota units from the site, over its own socket."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import msgspec
import structlog

from accounts.admission import Admission
from accounts.limits import LeaseGrant, LeaseRequest, LeaseReturn
from inference import refusals

logger = structlog.get_logger(__name__)

_TIMEOUT_S = 5.0
_GRANT_URL = "http://site/internal/leases"
_RELEASE_URL = "http://site/internal/leases/release"

_grant_decoder = msgspec.json.Decoder(LeaseGrant)


class LeaseClient:
    """Asks for leases as `holder`, which is this process's boot id."""

    def __init__(
        self,
        *,
        holder: str,
        clock: Callable[[], float],
        socket: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._holder = holder
        self._clock = clock
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(uds=str(socket)),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        self._under_way: dict[tuple[int, str, str, int], asyncio.Task[None]] = {}

    async def fetch(self, request: LeaseRequest, admission: Admission) -> None:
        """Have a lease granted to `admission`; raises ApiError if the site is away.

        Calls that need units of the same quota at the same time share one request;
        whoever then finds too few asks again.
        """
        key = (
            request.customer_id,
            request.quota,
            request.unit,
            request.window_start,
        )
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(request, admission))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        # A caller that leaves must not take the units from the others.
        await asyncio.shield(task)

    async def release(self, held: Iterable[LeaseReturn]) -> None:
        """Give unspent units back; what fails is settled from the spool later."""
        for units in held:
            try:
                response = await self._post(_RELEASE_URL, units)
                response.raise_for_status()
            except httpx.HTTPError:
                logger.warning("lease_release_failed", customer_id=units.customer_id)
                return

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, request: LeaseRequest, admission: Admission) -> None:
        try:
            response = await self._post(_GRANT_URL, request)
            response.raise_for_status()
            grant = _grant_decoder.decode(response.content)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            logger.warning("lease_refused", reason=type(error).__name__)
            raise refusals.not_leased() from error
        admission.accept(request, grant, self._clock())

    async def _post(self, url: str, body: LeaseRequest | LeaseReturn) -> httpx.Response:
        content = msgspec.json.encode(
            msgspec.structs.asdict(body) | {"holder": self._holder}
        )
        headers = {"content-type": "application/json", "host": "localhost"}
        return await self._client.post(url, content=content, headers=headers)
