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


# Customer, quota, unit and start of the window.
_Key = tuple[int, str, str, int]


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
        # What is asked for in this turn of the loop, and what is on its way.
        self._gathering: dict[_Key, list[LeaseRequest]] = {}
        self._under_way: dict[_Key, asyncio.Task[None]] = {}

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
        gathering = self._gathering.get(key)
        if gathering is not None:
            gathering.append(request)
        elif key not in self._under_way:
            self._gathering[key] = [request]
            task = asyncio.create_task(self._ask(key, admission))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        # A caller that leaves must not take the units from the others.
        await asyncio.shield(self._under_way[key])

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

    async def _ask(self, key: _Key, admission: Admission) -> None:
        # The task starts in the next turn: all that ask in this one are here.
        request = _merged(self._gathering.pop(key))
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


def _merged(requests: list[LeaseRequest]) -> LeaseRequest:
    """Ask for enough for all, and take what helps the most modest one.

    Near the end of a quota blocks are small, and one request after another would let
    callers wait for as many round trips as there are callers.
    """
    if len(requests) == 1:
        return requests[0]
    needed = sum(request.minimum for request in requests)
    return msgspec.structs.replace(
        requests[0],
        units=max(needed, *(request.units for request in requests)),
        minimum=min(request.minimum for request in requests),
    )
