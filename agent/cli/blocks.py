"""What the commands print: a few neutral blocks, written plainly here, for pipes and files.

Pure. `terminal` prints the same blocks for people with rich; `screens` and `records` make them.
"""

import textwrap
from dataclasses import dataclass, replace
from datetime import datetime

from agent.model.text import typed

WIDTH = 80
INDENT = 2
NARROWEST = 24
"""Columns for the last one of a table: where there are fewer, it stands below its row."""


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


def readable(block: Block) -> Block:
    """Return a block with its names as they are typed: the JSON that it was made of doubles their backslashes."""
    match block:
        case Line():
            return replace(block, text=typed(block.text))
        case Entry():
            subject, text, command = map(typed, (block.subject, block.text, block.command))
            return replace(block, subject=subject, text=text, command=command)
        case Table():
            return replace(block, rows=tuple(tuple(map(typed, row)) for row in block.rows))


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
            return wrap(block.text, width)
        case Entry():
            return [f"{'':{INDENT}}{block.subject}", *entry_lines(block, width)]
        case Table():
            return table_lines(block, width)


def entry_lines(entry: Entry, width: int) -> list[str]:
    """Return what stands below the subject of an entry; a command is never broken, so that it can be copied."""
    margin = " " * (2 * INDENT)
    body = [f"{margin}{part}" for part in wrap(entry.text, width - len(margin))]
    return [*body, f"{margin}→ {entry.command}"] if entry.command else body


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines, where it has its own as well; words with hyphens (units, versions) stay whole."""
    return [part for line in text.split("\n") for part in _wrap(line, width)]


def _wrap(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def is_crowded(table: Table, width: int) -> bool:
    """Return whether the other columns leave too little room for the last one, which then stands below its row."""
    return width - sum(size + 2 for size in _widths(table)) - INDENT < NARROWEST


def _widths(table: Table) -> list[int]:
    return [max(map(len, column)) for column in list(zip(table.columns, *table.rows, strict=True))[:-1]]


def table_lines(table: Table, width: int) -> list[str]:
    """Return a table as plain text."""
    widths, below = _widths(table), is_crowded(table, width)
    margin = 2 * INDENT if below else INDENT + sum(size + 2 for size in widths)
    lines = ["", f"{table.title}:"]
    for row in (table.columns, *table.rows):
        left = "".join(f"{cell:<{size}}  " for cell, size in zip(row, widths, strict=False))
        wrapped = wrap(row[-1], width - margin)
        head = "" if below else wrapped.pop(0)
        lines.append(f"{'':{INDENT}}{left}{head}".rstrip())
        lines += [f"{'':{margin}}{part}".rstrip() for part in wrapped if part]
    return lines
