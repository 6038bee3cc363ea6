"""How a command gives its result: JSON where that is asked for, tables for a person, plain text for a pipe."""

import json
import sys
from argparse import Namespace
from typing import Any

from agent.cli.blocks import Block, write


def emit(options: Namespace, data: dict[str, Any], shown: list[Block]) -> None:
    """Print the result: `data` as JSON, else what is `shown` of it."""
    if options.json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from agent.cli import terminal

        terminal.show(shown)
    else:
        print(write(shown))
