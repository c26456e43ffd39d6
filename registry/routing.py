"""Choosing the variant that answers a request. Pure."""

from typing import Literal

import msgspec

Role = Literal["default", "canary"]


class Variant(msgspec.Struct, frozen=True, gc=False):
    """A model version in a route with a role and a weight in percent."""

    version: int
    role: Role
    weight_percent: int
