"""Adapt drf-spectacular to our views."""

from drf_spectacular.openapi import AutoSchema


class ApiSchema(AutoSchema):
    """Document JSON for views without parsers, whose body the prediction plan reads."""

    def map_parsers(self) -> list[str]:
        return super().map_parsers() or ["application/json"]
