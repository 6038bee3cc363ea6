"""Prints blocks for a person, with rich: tables that wrap, and colour for what is urgent. The only user of rich."""

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from agent.cli.blocks import INDENT, Block, Entry, Line, Table, entry_lines, is_crowded, table_lines, wrap

STYLES = {"critical": "bold red", "error": "red", "warning": "yellow", "info": "cyan", "unknown": "magenta"}
STYLES |= {"fresh": "green", "bad": "red", "note": "yellow"}
WIDEST = 100
"""Columns; longer lines are hard to read."""


def show(blocks: list[Block], stream: TextIO | None = None) -> None:
    """Print blocks to the terminal; names from outside are text, never markup."""
    console = Console(file=stream, highlight=False)
    width = min(console.width, WIDEST)
    for block in blocks:
        match block:
            case Line():
                for line in wrap(block.text, width):
                    console.print(Text(line, style=STYLES.get(block.tone, "")), soft_wrap=True)
            case Entry():
                _entry(console, block, width)
            case Table() if is_crowded(block, width):
                console.print(Text("\n".join(table_lines(block, width))), soft_wrap=True)
            case Table():
                console.print(Text(f"\n{block.title}:"), _table(block), sep="\n", width=width)


def _entry(console: Console, entry: Entry, width: int) -> None:
    console.print(Text(f"{'':{INDENT}}{entry.subject}", style=STYLES.get(entry.tone, "")), soft_wrap=True)
    lines = entry_lines(entry, width)
    for line in lines:
        is_command = bool(entry.command) and line is lines[-1]
        console.print(Text(line, style="bold" if is_command else ""), soft_wrap=True)


def _table(block: Table) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in block.columns[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(block.columns[-1], overflow="fold")
    for row in block.rows:
        table.add_row(*[Text(cell, style=STYLES.get(cell, "")) for cell in row])
    return table
