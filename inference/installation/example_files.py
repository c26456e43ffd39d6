"""Pass inputs that a shadow answered otherwise to the controller, a file each.

They do not go through the spool, because they hold what customers sent: the controller
deletes each as it reads it, and the rows that it makes end with their customer.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from inference.installation import whole_files

# Files that the controller has not read yet; later examples are dropped.
MOST_FILES = 100
_SUFFIX = ".json"


class Example(msgspec.Struct, frozen=True):
    """One call that shadow and default answered differently."""

    at: float
    customer_id: int
    request_id: str
    model: str
    default: int
    shadow: int
    # The call's body, and both answers, as JSON.
    body: str
    default_answer: str
    shadow_answer: str


_decoder = msgspec.json.Decoder(Example)


def write(folder: Path, name: str, example: Example) -> bool:
    """Write an example; return False if too many wait. Raises OSError."""
    folder.mkdir(exist_ok=True)
    if sum(1 for _ in folder.iterdir()) >= MOST_FILES:
        return False
    path = folder / f"{name}{_SUFFIX}"
    whole_files.write(path, msgspec.json.encode(example), durable=False)
    return True


def read(folder: Path) -> Iterator[tuple[Path, Example | None]]:
    """Yield all examples that wait; None for one that cannot be read."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        yield path, whole_files.read(path, _decoder)
