"""Say what runs, so that whoever ends the process can be named."""

from typing import Protocol


class PieceNotes(Protocol):
    """Notes of what runs now; several threads write them, each its own piece.

    A process that dies leaves its open notes behind.
    """

    def begin(self, name: str, rows: int, batch: int, *, loading: bool = False) -> int:
        """Note that a version begins a batch, or to load; return the note's slot."""

    def end(self, slot: int) -> None: ...


class NoNotes:
    """Note nothing."""

    def begin(self, name: str, rows: int, batch: int, *, loading: bool = False) -> int:
        return 0

    def end(self, slot: int) -> None:
        pass
