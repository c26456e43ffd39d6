"""Issue many keys of one customer at once, all or none."""

import csv
import io
from collections.abc import Sequence

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.admission import key_format
from accounts.customers import api_keys
from accounts.models import ApiKey, Customer

MOST = 1000
_LONGEST_NAME = ApiKey._meta.get_field("name").max_length or 0


def read_names(text: str) -> list[str]:
    """Read one name per line, or the first column of a CSV file, without its heading.

    Raise ValidationError for no names or too many, and for a name that is too long or
    comes twice.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValidationError(f"This is not CSV: {error}.") from None
    names = [row[0].strip() for row in rows if row and row[0].strip()]
    if names and names[0].lower() == "name":
        del names[0]
    return _checked(names)


def number_names(prefix: str, count: int) -> list[str]:
    """Make names, `key 1`, `key 2` and so on; raise ValidationError as `read_names`."""
    return _checked([f"{prefix} {number + 1}" for number in range(count)])


def _checked(names: list[str]) -> list[str]:
    if not names:
        raise ValidationError("Give at least one name.")
    if len(names) > MOST:
        raise ValidationError(f"At most {MOST} keys can be issued at once.")
    for name in names:
        if len(name) > _LONGEST_NAME:
            raise ValidationError(f"“{name[:20]}…” is too long for a name.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValidationError(f"These names come twice: {', '.join(twice[:5])}.")
    return names


@transaction.atomic
def issue(
    customer: Customer,
    names: Sequence[str],
    *,
    scopes: Sequence[str],
    mode: key_format.Mode = "live",
    by: User,
) -> list[api_keys.IssuedKey]:
    """Issue a key for each name; none if one of them cannot be issued."""
    return [
        api_keys.issue(customer, name=name, scopes=scopes, mode=mode, created_by=by)
        for name in names
    ]
