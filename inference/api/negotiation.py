"""Read JSON strictly, and choose JSON for each of its media types."""

from collections.abc import Iterable
from typing import IO, Any

from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from inference.codecs.strict_json import parse_object
from inference.errors.api_error import ApiError, ErrorCode

MAX_BODY_BYTES = 2 * 1024 * 1024

# The first asks for errors in the format of RFC 9457; the second is our own.
_ALSO_JSON = ("application/problem+json", "application/vnd.modelyard.v1+json")


class JsonParser(BaseParser):
    """Read a JSON object like those of predictions: of limited size, strictly."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> dict[str, Any]:
        return parse_object(read_body(stream))


def read_body(stream: IO[bytes], *, advice: str = "Send less.") -> bytes:
    """Read a JSON body; raise ApiError TOO_LARGE beyond MAX_BODY_BYTES."""
    body = stream.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise ApiError(
            ErrorCode.TOO_LARGE,
            f"A JSON body may have at most {MAX_BODY_BYTES} bytes. {advice}",
            facts={"maximum": MAX_BODY_BYTES},
        )
    return body


class JsonNegotiation(DefaultContentNegotiation):
    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> Any:
        available = list(renderers)
        if request.query_params.get("format") == "":
            # DRF would ignore it.
            raise NotAcceptable
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

    def filter_renderers(
        self,
        renderers: Any,
        format: str,  # noqa: A002 - DRF's name
    ) -> Any:
        """Answer 406 to an unknown `?format=`, where DRF would answer 404."""
        found = [renderer for renderer in renderers if renderer.format == format]
        if not found:
            raise NotAcceptable
        return found
