"""What the commands print: a few neutral blocks, written plainly here, for pipes and files.

Pure. `terminal` prints the same blocks for people with rich; `screens` and `records` make them.
"""

import textwrap
from dataclasses import dataclass
from datetime import datetime

WIDTH = 80
INDENT = 2


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence; `tone` is a severity word or empty."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A subject, what is to be said of it, and the command that helps."""

    subject: str
    text: str
    command: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title. The last column takes what room is left and is wrapped."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Line | Entry | Table


def local(moment: str | None) -> str:
    """Return a time of the contract in the reader's own zone, to the second."""
    if not moment:
        return "?"
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def write(blocks: list[Block], width: int = WIDTH) -> str:
    """Return blocks as plain text of at most `width` columns where the names allow it."""
    return "\n".join(line for block in blocks for line in _lines(block, width))


def _lines(block: Block, width: int) -> list[str]:
    match block:
        case Line():
            return [part for piece in block.text.split("\n") for part in wrap(piece, width)]
        case Entry():
            return [f"{'':{INDENT}}{block.subject}", *entry_lines(block, width)]
        case Table():
            return _table_lines(block, width)


def entry_lines(entry: Entry, width: int) -> list[str]:
    """Return what stands below the subject of an entry; a command is never broken, so that it can be copied."""
    margin = " " * (2 * INDENT)
    body = [f"{margin}{part}" for piece in entry.text.split("\n") for part in wrap(piece, width - len(margin))]
    return [*body, f"{margin}→ {entry.command}"] if entry.command else body


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines; words with hyphens (units, versions) stay whole."""
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _table_lines(table: Table, width: int) -> list[str]:
    cells = (table.columns, *table.rows)
    widths = [max(len(row[number]) for row in cells) for number in range(len(table.columns) - 1)]
    room = max(width - sum(widths) - 2 * len(widths) - INDENT, 24)
    lines = ["", f"{table.title}:"]
    for row in cells:
        left = "".join(f"{cell:<{size}}  " for cell, size in zip(row, widths, strict=False))
        wrapped = [part for piece in row[-1].split("\n") for part in wrap(piece, room)]
        lines.append(f"{'':{INDENT}}{left}{wrapped[0]}".rstrip())
        lines += [f"{'':{INDENT}}{'':{len(left)}}{part}" for part in wrapped[1:]]
    return lines
