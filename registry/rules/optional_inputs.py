"""Number the inputs that callers may leave out, for masks of those that a call used."""

from collections.abc import Iterable

from registry.rules.contracts import Contract

# A database holds 63 bits without a sign. The last one stands for all further inputs.
_MOST_BITS = 63


def bits_of(columns: Iterable[str], params: Iterable[str]) -> dict[str, int]:
    """Return the bit of each optional column and of each parameter, in their order."""
    names = [*columns, *map(parameter, params)]
    return {name: 1 << min(place, _MOST_BITS - 1) for place, name in enumerate(names)}


def bits_of_contract(contract: Contract) -> dict[str, int]:
    """Return the bits of a version's optional inputs, as gateways number them."""
    optional = [field.name for field in contract.columns if not field.required]
    return bits_of(optional, [field.name for field in contract.params])


def parameter(name: str) -> str:
    """Tell a parameter from a column of the same name."""
    return f"parameters.{name}"
