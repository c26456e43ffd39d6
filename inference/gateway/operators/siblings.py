"""Ask the other gateways of this machine for reports, over their Unix sockets."""

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
    """Find siblings by the names of their sockets, which also works after restarts."""

    def __init__(self, folder: Path, *, own_name: str, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._others = tuple(name for name in names if name != own_name)

    async def reports(self) -> list[GatewayReport]:
        """Ask all siblings at once; leave out those that do not answer."""
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
