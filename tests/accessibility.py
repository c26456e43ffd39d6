"""What a page must have for people who cannot see it, or not well, or use no mouse.

The rules are those of WCAG 2.2 AA that a program can check: names of controls (1.3.1,
4.1.2), order of headings, language (3.1.1), contrast of text (1.4.3).
"""

from pathlib import Path

_CHECK = Path(__file__).with_suffix(".js").read_text()


def problems(page):
    """List what is wrong with the page that is open; empty if nothing is."""
    return page.evaluate(_CHECK)
