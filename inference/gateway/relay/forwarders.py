"""Count relayed requests whose X-Forwarded-For is not believed.

If many have one, a proxy is missing in MODELYARD_TRUSTED_PROXIES.
"""

from accounts.admission.networks import Networks


class Forwarders:
    """The requests of this gateway for the site, and those from other proxies."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = trusted
        self.requests = 0
        self.distrusted = 0
        # The address that sent the last of them.
        self.distrusted_peer = ""

    def note(self, peer: str, forwarded_for: bytes | None) -> None:
        self.requests += 1
        if forwarded_for is not None and not self._trusted.contain(peer):
            self.distrusted += 1
            self.distrusted_peer = peer
