"""DRF's content negotiation, with the two media types of ours that are JSON."""

from collections.abc import Iterable
from typing import Any

from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

# The first asks for errors as RFC 9457; the second may name a model version.
_ALSO_JSON = ("application/problem+json", "application/vnd.modelyard.v1+json")


class JsonNegotiation(DefaultContentNegotiation):
    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> Any:
        available = list(renderers)
        try:
            return super().select_renderer(request, available, format_suffix)
        except NotAcceptable:
            accepted = request.headers.get("Accept", "").lower()
            for renderer in available:
                if isinstance(renderer, JSONRenderer) and any(
                    media_type in accepted for media_type in _ALSO_JSON
                ):
                    return renderer, renderer.media_type
            raise
