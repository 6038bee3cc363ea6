"""`agentctl policy import-needrestart`: what the administrator had told needrestart, as rules for aftercare.

It reads needrestart's files as text and prints; where the result goes is for who asked.
"""

import sys
from argparse import Namespace
from pathlib import Path

from agent.config.needrestart import SNIPPETS, import_needrestart
from agent.model.errors import AgentError, Exit, Kind
from agent.model.text import printable

MAIN = Path("/etc/needrestart/needrestart.conf")
LARGEST = 1 << 20
TARGET = "/etc/aftercare/aftercare.toml.d/50-needrestart.toml"


def policy_import_needrestart(options: Namespace) -> int:
    """Print the rules; what was left out, and why, goes to stderr."""
    files = [MAIN, *sorted(Path(SNIPPETS).glob("*.conf"))]
    texts = [(str(path), _read(path)) for path in files if path.is_file()]
    if not texts:
        raise AgentError(Kind.UNREADABLE, f"{MAIN} does not exist", "there is nothing to import")
    found = import_needrestart(texts)
    for line in found.remarks:
        print(f"left out: {printable(line)}", file=sys.stderr)
    for line in found.unknown:
        print(f"not understood: {printable(line)}", file=sys.stderr)
    print(found.text, end="")
    print(f"# agentctl policy import-needrestart > {TARGET}; systemctl reload aftercare", file=sys.stderr)
    return Exit.FINDINGS if found.unknown else Exit.CLEAN


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST).decode(errors="surrogateescape")
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{path}: {problem.strerror}", "run it as root") from problem
