"""How drf-spectacular reads our views."""

from drf_spectacular.openapi import AutoSchema


class ApiSchema(AutoSchema):
    """A view without parsers leaves the body to the prediction plan: it takes JSON."""

    def map_parsers(self) -> list[str]:
        return super().map_parsers() or ["application/json"]
