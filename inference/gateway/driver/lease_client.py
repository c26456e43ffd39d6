"""Fetch leases of quota units from the site, over its internal socket."""

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
# Idle connections close before the site's server closes them, after 2 s. A connection
# that closes as a request is sent looks like a site that is away.
_CONNECTIONS = httpx.Limits(
    max_connections=_AT_ONCE, max_keepalive_connections=10, keepalive_expiry=1.0
)
# For this time after a failure, calls do not wait for the site.
_AWAY_S = 1.0
# For this time after that, metrics tell of it.
_TOLD_S = 45.0
_GRANT_URL = "http://site/internal/leases"

_grant_decoder = msgspec.json.Decoder(LeaseGrant)


AnyAdmission = Admission | KeyAdmission
# Customer, key, quota, unit and start of the window.
_Key = tuple[int, str, str, str, int]


class _SiteAway(Exception):
    """The site or its database does not answer, or refuses."""


class LeaseClient:
    """Ask the site for leases; `holder` is this process's boot id."""

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
        # When many ask at once, as at the start of a day, the site is busy and not
        # away. They wait here, because httpx's pool looks at all of them for each
        # answer.
        self._turns = asyncio.Semaphore(_AT_ONCE)
        # Requests gathered in this turn of the event loop, and those under way.
        self._gathering: dict[_Key, list[LeaseRequest]] = {}
        self._under_way: dict[_Key, asyncio.Task[None]] = {}
        self._away_until = 0.0
        # The last request failed.
        self._away = False
        # Failed requests by the reason: the status, or the exception's name.
        self.failures: Counter[str] = Counter()

    async def fetch(self, request: LeaseRequest, admission: AnyAdmission) -> None:
        """Get a lease for `admission`, or an overdraft while the site is away.

        Raises ApiError once the overdraft is used up. Calls that need units of the same
        quota at the same time share one request; a call that then finds too few units
        asks again. Only the first calls that find the site silent wait for it. After
        that, one request at a time asks whether it is back, and calls do not wait.
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
        """Ask for units before calls need them; if that fails, the calls will ask."""
        key = _key(request)
        away = self._timer() < self._away_until
        if key not in self._under_way and not away:
            self._start(key, request, admission)

    async def release(self, requests: Iterable[LeaseRequest]) -> None:
        """Return leases to the site; if that fails, the spool's events settle them."""
        for request in requests:
            try:
                await self._post(request)
            except _SiteAway:
                logger.warning("lease_release_failed", customer_id=request.customer_id)
                return

    @property
    def failing(self) -> bool:
        """Return whether the last request for a lease failed, lately.

        Without calls nothing asks again. So one failure is forgotten before its alert
        fires, which waits a minute; as long as calls come, an outage fails anew.
        """
        return self._away and self._timer() < self._away_until + _TOLD_S

    async def close(self) -> None:
        await self._client.aclose()

    def _start(self, key: _Key, request: LeaseRequest, admission: AnyAdmission) -> None:
        self._gathering[key] = [request]
        task = asyncio.create_task(self._ask(key, admission))
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key))
        task.add_done_callback(_take_note)

    def _overdraw_beside(self, request: LeaseRequest, admission: AnyAdmission) -> bool:
        """Overdraw for one call; its request goes on, and its grant is still taken."""
        unnumbered = msgspec.structs.replace(request, number=0)
        return admission.overdraw(unnumbered, self._clock())

    async def _ask(self, key: _Key, admission: AnyAdmission) -> None:
        # The task starts in the next turn of the loop, so all requests of this turn
        # are gathered.
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
            logger.warning(
                "lease_refused",
                outage="leases",
                reason=error,
                customer_id=body.customer_id,
                key_id=body.key_id,
                quota=body.quota,
            )
            self._away_until = self._timer() + _AWAY_S
            self._away = True
            raise _SiteAway from error
        self._away = False
        logger.info("leases_granted_again", outage_over="leases")
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
    """Return a short name for a failure, from a small set: it labels a metric."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return type(error).__name__


def _take_note(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        # Fetch it, or asyncio logs it as never retrieved when no call waits.
        task.exception()
