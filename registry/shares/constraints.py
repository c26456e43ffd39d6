"""Make the database's conditions for a row with canaries."""

from itertools import combinations

from django.db.models import F, Q

from registry.shares.canaries import VERSIONS, WEIGHTS


def weights_sum_to_100() -> Q:
    """Return the condition that the default gets what canaries leave."""
    left = 100 - F(WEIGHTS[0])
    for weight in WEIGHTS[1:]:
        left -= F(weight)
    return Q(default_weight_percent=left)


def no_weight_without_canary() -> Q:
    found = Q()
    for name, weight in zip(VERSIONS, WEIGHTS, strict=True):
        found &= Q(**{f"{name}__isnull": False}) | Q(**{weight: 0})
    return found


def versions_differ() -> Q:
    """Return the condition that no version has two places, or is the default, too."""
    found = Q()
    for one, other in combinations(("default_version", *VERSIONS), 2):
        found &= Q(**{f"{other}__isnull": True}) | ~Q(**{other: F(one)})
    return found
