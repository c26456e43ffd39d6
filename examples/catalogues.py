"""Read sentences in many languages from Django's translations.

The test set has only messages that do not occur in training in any language, so a
model cannot memorize them.
"""

import gettext
import re
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import django

# Folders of Django's catalogues; the part before "_" is the label.
_FOLDERS = (
    *("ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hu", "id"),
    *("it", "ja", "ko", "nl", "pl", "pt", "ro", "ru", "sv", "tr", "uk", "zh_Hans"),
)
LABELS = tuple(name.partition("_")[0] for name in _FOLDERS)
# Placeholders and markup, which are removed.
_NOT_LANGUAGE = re.compile(r"%\(\w+\)[a-z]|%[sd%]|\{[^}]*\}|<[^>]*>|&\w+;|https?://\S+")
_SHORTEST_TEXT = 8


class Sentence(NamedTuple):
    # The English message that `text` translates.
    message: str
    text: str
    label: str

    @property
    def is_test(self) -> bool:
        return zlib.crc32(self.message.encode()) % 5 == 0


@cache
def read_sentences() -> tuple[Sentence, ...]:
    """Return every translated message once per language, also in English."""
    found = {}
    for folder, label in zip(_FOLDERS, LABELS, strict=True):
        for message, translation in _read_catalogues(folder):
            text = message if label == "en" else translation
            text = " ".join(_NOT_LANGUAGE.sub(" ", text).split())
            # Skip untranslated messages: they are English with a wrong label.
            if len(text) >= _SHORTEST_TEXT and (label == "en" or text != message):
                found[message, text, label] = Sentence(message, text, label)
    return tuple(found.values())


def _read_catalogues(folder: str) -> Iterator[tuple[str, str]]:
    root = Path(django.__file__).parent
    # The English catalogue is empty, as its texts are in the code; any other catalogue
    # has them as keys.
    name = "de" if folder == "en" else folder
    # Not "**", which would search every folder of Django.
    folders = [*root.glob("conf/locale"), *root.glob("contrib/*/locale")]
    paths = [path for each in folders for path in each.glob(f"{name}/LC_MESSAGES/*.mo")]
    for path in sorted(paths):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
        # A private member is the only way to list messages; gettext only looks them up.
        for key, translation in catalogue._catalog.items():
            message = key[0] if isinstance(key, tuple) else key
            # The empty message is the catalogue's header.
            if message:
                yield message.rpartition("\x04")[2], translation
