"""Keep the secret key of a home: made once, and never replaced unasked.

With another key everybody is signed out, and what was signed before is worth nothing.
"""

import fcntl
import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from inference.installation.home import Home


def of_home(home: Home) -> str:
    """Return the home's key, made first if the home is new; "" if there is none.

    There is none if the home has served before and its key is lost, or if this process
    may not read it. Then Django refuses to sign.
    """
    try:
        if key := _read(home):
            return key
        if home.home_id.exists():
            return ""
    except OSError:
        return ""
    try:
        return _make_first(home)
    except OSError:
        # Commands that work without writing sign nothing that lasts.
        return get_random_secret_key()


def in_use() -> str:
    """Return the key that this process signs with; "" if it has none."""
    try:
        return settings.SECRET_KEY
    except ImproperlyConfigured:
        return ""


def is_lost(home: Home) -> bool:
    """Return whether this home has served before, and has no key now."""
    try:
        return home.home_id.exists() and not _read(home)
    except OSError:
        # Another user asks, who cannot know.
        return False


def replace(home: Home) -> None:
    """Give the home a new key; raises OSError."""
    # The file appears by a rename, so a kill never leaves an empty one.
    partial = home.secret_key.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(get_random_secret_key())
    partial.replace(home.secret_key)


def _read(home: Home) -> str:
    try:
        return home.secret_key.read_text()
    except FileNotFoundError:
        return ""


def _make_first(home: Home) -> str:
    # The lock lets one process make it.
    folder = os.open(home.root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not _read(home):
            replace(home)
    finally:
        os.close(folder)
    return _read(home)
