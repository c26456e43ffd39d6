"""Fetching quota units from the site, over its own socket."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx
import msgspec
import structlog

from accounts.admission.admission import Admission
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import LeaseGrant, LeaseRequest
from accounts.admission.windows import merged
from inference.errors import refusals
from inference.installation.sockets import http_over

logger = structlog.get_logger(__name__)

_TIMEOUT_S = 2.0
_AT_ONCE = 20
# Idle connections go before the site's server (2 s) closes them: one that is closed as
# a request is sent looks like a site that is away.
_CONNECTIONS = httpx.Limits(
    max_connections=_AT_ONCE, max_keepalive_connections=10, keepalive_expiry=1.0
)
# Calls do not wait for a site that has just failed to answer.
_AWAY_S = 1.0
_GRANT_URL = "http://site/internal/leases"

_grant_decoder = msgspec.json.Decoder(LeaseGrant)


AnyAdmission = Admission | KeyAdmission
# Customer, key, quota, unit and start of the window.
_Key = tuple[int, str, str, str, int]


class _SiteAway(Exception):
    """The site, or its database, does not answer, or refuses."""


class LeaseClient:
    """Asks for leases as `holder`, which is this process's boot id."""

    def __init__(
        self,
        *,
        holder: str,
        clock: Callable[[], float],
        timer: Callable[[], float] = time.monotonic,
        socket: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._holder = holder
        self._clock = clock
        self._timer = timer
        self._client = httpx.AsyncClient(
            transport=transport or http_over(socket or Path(), _CONNECTIONS),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        # Where many ask at once, as a day begins, the site is busy and not away: they
        # wait here, not in httpx's pool, which looks at all of them for each answer.
        self._turns = asyncio.Semaphore(_AT_ONCE)
        # What is asked for in this turn of the loop, and what is on its way.
        self._gathering: dict[_Key, list[LeaseRequest]] = {}
        self._under_way: dict[_Key, asyncio.Task[None]] = {}
        self._away_until = 0.0
        # Whether the site did not lend when it was asked last.
        self._away = False
        # How often it did not, by the reason: its status, or what went wrong.
        self.failures: Counter[str] = Counter()

    async def fetch(self, request: LeaseRequest, admission: AnyAdmission) -> None:
        """Have a lease granted to `admission`, or an overdraft while the site is away.

        Raises ApiError once that is used up. Calls that need units of the same quota
        at the same time share one request; whoever then finds too few asks again. Only
        those that find the site silent first wait for it: then one request after
        another asks whether it is back, and calls go on beside them.
        """
        key = _key(request)
        if key in self._gathering:
            self._gathering[key].append(request)
        elif key not in self._under_way and self._timer() >= self._away_until:
            self._start(key, request, admission)
        if self._away and self._overdraw_beside(request, admission):
            return
        try:
            if key not in self._under_way:
                raise _SiteAway
            # A caller that leaves must not take the units from the others.
            await asyncio.shield(self._under_way[key])
        except _SiteAway:
            if not admission.overdraw(request, self._clock()):
                raise refusals.not_leased() from None

    def prefetch(self, admission: Admission, request: LeaseRequest) -> None:
        """Ask ahead, for calls to come; if it fails, they ask themselves."""
        key = _key(request)
        away = self._timer() < self._away_until
        if key not in self._under_way and not away:
            self._start(key, request, admission)

    async def release(self, requests: Iterable[LeaseRequest]) -> None:
        """Tell the site what is given up; what fails is settled from the spool."""
        for request in requests:
            try:
                await self._post(request)
            except _SiteAway:
                logger.warning("lease_release_failed", customer_id=request.customer_id)
                return

    @property
    def failing(self) -> bool:
        """Tell whether the site lent nothing when it was asked last."""
        return self._away

    async def close(self) -> None:
        await self._client.aclose()

    def _start(self, key: _Key, request: LeaseRequest, admission: AnyAdmission) -> None:
        self._gathering[key] = [request]
        task = asyncio.create_task(self._ask(key, admission))
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key))
        task.add_done_callback(_take_note)

    def _overdraw_beside(self, request: LeaseRequest, admission: AnyAdmission) -> bool:
        """Overdraw for one call, and still take what is granted to its request."""
        unnumbered = msgspec.structs.replace(request, number=0)
        return admission.overdraw(unnumbered, self._clock())

    async def _ask(self, key: _Key, admission: AnyAdmission) -> None:
        # The task starts in the next turn: all that ask in this one are here.
        request = merged(self._gathering.pop(key))
        try:
            grant = await self._post(request)
        except _SiteAway:
            admission.give_up_on(request)
            raise
        admission.accept(request, grant, self._clock())
        if admission.owed:
            owed, admission.owed[:] = list(admission.owed), []
            await self.release(owed)

    async def _post(self, body: LeaseRequest) -> LeaseGrant:
        content = msgspec.json.encode(
            msgspec.structs.asdict(body) | {"holder": self._holder}
        )
        headers = {"content-type": "application/json", "host": "localhost"}
        try:
            async with self._turns:
                if self._timer() < self._away_until:
                    raise _SiteAway
                response = await self._client.post(
                    _GRANT_URL, content=content, headers=headers
                )
            response.raise_for_status()
            grant = _grant_decoder.decode(response.content)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            reason = _reason(error)
            self.failures[reason] += 1
            logger.warning("lease_refused", reason=reason)
            self._away_until = self._timer() + _AWAY_S
            self._away = True
            raise _SiteAway from error
        self._away = False
        return grant


def _key(request: LeaseRequest) -> _Key:
    return (
        request.customer_id,
        request.key_id,
        request.quota,
        request.unit,
        request.window_start,
    )


def _reason(error: Exception) -> str:
    """Name a failure in one of a few words: an answer by its status."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return type(error).__name__


def _take_note(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        # A site that is away is no surprise to whoever does not wait.
        task.exception()
