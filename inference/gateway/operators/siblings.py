"""The other gateways of this machine, asked over their own Unix sockets."""

import asyncio
from pathlib import Path

import httpx
import msgspec

from inference.gateway.operators.reports import GatewayReport
from inference.installation.sockets import http_over

# A scrape must not hang on a sibling that hangs.
_TIMEOUT_S = 1.0
_ONE = httpx.Limits(max_connections=1)
_decoder = msgspec.msgpack.Decoder(GatewayReport)


class Siblings:
    """Finds siblings by the names of their sockets, so that restarts need no word."""

    def __init__(self, folder: Path, *, own_name: str, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._others = tuple(name for name in names if name != own_name)

    async def reports(self) -> list[GatewayReport]:
        """Ask all at once; leave out who is not there or does not answer."""
        answers = await asyncio.gather(*(self._ask(name) for name in self._others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, name: str) -> GatewayReport | None:
        for path in self._folder.glob(f"{name}.*.sock"):
            transport = http_over(path, _ONE)
            try:
                async with httpx.AsyncClient(
                    transport=transport, timeout=_TIMEOUT_S, trust_env=False
                ) as client:
                    response = await client.get("http://localhost/report")
                    response.raise_for_status()
                    return _decoder.decode(response.content)
            except (httpx.HTTPError, msgspec.DecodeError):
                continue
        return None
