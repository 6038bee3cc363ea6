"""How a command gives its result: JSON where that is asked for, tables for a person, plain text for a pipe."""

import json
import sys
from argparse import Namespace
from typing import Any

from agent.cli.blocks import Block, readable, write


def emit(options: Namespace, data: dict[str, Any], shown: list[Block]) -> None:
    """Print the result: `data` as JSON, else what is `shown` of it."""
    if options.json:
        json.dump(data, sys.stdout, indent=2, ensure_ascii=False)  # piece by piece: there may be thousands of processes
        print()
    elif sys.stdout.isatty():
        from agent.cli import terminal

        terminal.show([readable(block) for block in shown])
    else:
        print(write([readable(block) for block in shown]))
