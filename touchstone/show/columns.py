"""Set short texts in aligned columns, so that each word is above its label in any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

GAP = 2
LEFT_TO_RIGHT_MARK = "\u200e"
MAX_CELLS = 60
"""Maximum width of a column in terminal cells. Longer texts are cut."""


def visible(text: str) -> str:
    """Replace every character that is invisible, moves the cursor or reorders the line by a visible escape."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the Unicode picture of the control character
    if code == 0x7F:
        return "\u2421"
    if character in "\u200d\ufe0e\ufe0f":  # these join several characters into one emoji
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"):
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


def cell(text: str) -> str:
    """Prepare a text for a column: visible, cut to `MAX_CELLS`, and isolated if it is right-to-left."""
    text = visible(text) or "''"
    if cell_len(text) > MAX_CELLS:
        text = set_cell_size(text, MAX_CELLS - 1) + "\u2026"
    if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text):
        text = LEFT_TO_RIGHT_MARK + text + LEFT_TO_RIGHT_MARK
    return text


def set_in_columns(
    rows: Sequence[Sequence[str]], *, width: int, styles: Sequence[Sequence[str]] | None = None, indent: int = 2
) -> list[Text]:
    """Set R rows of N texts in N columns. Rows that exceed the width continue below, after a blank line.

    Args:
        rows: R sequences of the same length N.
        width: terminal cells per line. A column that is wider gets its own line.
        styles: a rich style for each text, in the same shape.

    Raises:
        ValueError: the rows differ in length.
    """
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"rows differ in length: {[len(row) for row in rows]}")
    cells = [[cell(text) for text in row] for row in rows]
    widths = [
        max(cell_len(text.replace(LEFT_TO_RIGHT_MARK, "")) for text in column) for column in zip(*cells, strict=True)
    ]
    lines: list[Text] = []
    for start, end in _breaks(widths, room=width - indent):
        if lines:
            lines.append(Text())
        for r, row in enumerate(cells):
            line = Text(" " * indent)
            for i in range(start, end):
                text = row[i]
                line.append(text, style=styles[r][i] if styles else "")
                line.append(" " * (widths[i] - cell_len(text.replace(LEFT_TO_RIGHT_MARK, "")) + GAP))
            line.rstrip()
            lines.append(line)
    return lines


def _breaks(widths: Sequence[int], *, room: int) -> list[tuple[int, int]]:
    """Return the first column of each line and the one after its last."""
    breaks: list[tuple[int, int]] = []
    start, used = 0, 0
    for i, width in enumerate(widths):
        if i > start and used + width > room:
            breaks.append((start, i))
            start, used = i, 0
        used += width + GAP
    if start < len(widths):
        breaks.append((start, len(widths)))
    return breaks
