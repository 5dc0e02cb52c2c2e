"""Plain tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from solstice.cli.words import painted, plain


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two blanks between them; cells of one line, without control characters.

    A cell that is a state's word has its colour.
    """
    cells = [list(head), *[[plain(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(_line(row, widths) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Padded before it is painted: a colour's own characters have no width."""
    last = max((column for column, cell in enumerate(row) if cell), default=0)
    padded = [painted(cell) + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([*padded[:last], painted(row[last])])
