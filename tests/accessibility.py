"""Check whether people who see badly, or use no mouse, can use a page.

The rules are those of WCAG 2.2 AA that a program can check: names of controls (1.3.1,
4.1.2), order of headings, language (3.1.1), contrast of text (1.4.3).
"""

from pathlib import Path

_CHECK = Path(__file__).with_suffix(".js").read_text()


def problems(page):
    """List what is wrong with the open page; an empty list if nothing is."""
    return page.evaluate(_CHECK)
