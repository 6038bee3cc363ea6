"""Files of variables that units name by EnvironmentFile=, read as systemd reads them, and only where root alone writes.

Nothing in them is expanded or run. The grammar is that of systemd's src/basic/env-file.c.
"""

import os
import re
import stat
from collections.abc import Iterator

from agent.host.beneath import READ, open_beneath
from agent.host.mounts import Mounts, open_local
from agent.model.facts import Host

LARGEST = 64 << 10
QUOTED = r"""'[^']*'|"(?:\\.|[^"\\])*\""""
LINE = re.compile(
    rf"""[ \t]*(?:[#;](?:\\.|[^\\\n])*|([^\n=#;]*)=[ \t]*((?:{QUOTED}|\\.|[^\\'"\n])*)|[^\n]*)[^\n]*(?:\n|\Z)""",
    re.DOTALL,
)
"""A comment (a backslash continues it), an assignment, whose value may go over lines, or anything else."""
PIECE = re.compile(rf"""({QUOTED})|\\(.)|([^\\'"]+)""", re.DOTALL)
ESCAPED = re.compile(r'\\(["\\`$\n])')
"""What a backslash escapes within double quotes; before all else it stands for itself."""


class Refused(Exception):
    """A file that is there and is not read, in words for people."""


def read_file(host: Host, mounts: Mounts, path: str) -> str:
    """Return the text of such a file; empty where there is none.

    Raises Refused where others than root may write it, a link or another file system leads to it, or it is too large.
    """
    try:
        with open_local(mounts, host.under(path.rpartition("/")[0] or "/")) as directory:
            return _read(directory, path)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise Refused(f"{path}: {problem.strerror}") from problem


def _read(directory: int, path: str) -> str:
    descriptor = open_beneath(directory, path.rpartition("/")[2], READ)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
            raise Refused(f"{path} is no small regular file")
        if facts.st_uid or facts.st_mode & 0o022:
            raise Refused(f"{path} may be written by others than root")
        return os.fsdecode(os.pread(descriptor, LARGEST, 0))
    finally:
        os.close(descriptor)


def parse(text: str) -> dict[str, str]:
    """Return the variables in the text of such a file; the last of a name counts. Pure."""
    return dict(_assignments(text))


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for found in LINE.finditer(text):
        if found[1] is not None:
            yield found[1].strip(), _value(found[2])


def _value(raw: str) -> str:
    """Blanks at the end go, where no quotes hold them."""
    pieces = [_piece(found) for found in PIECE.finditer(raw)]
    if pieces and not pieces[-1][1]:
        pieces[-1] = pieces[-1][0].rstrip(), False
    return "".join(text for text, _ in pieces)


def _piece(found: re.Match[str]) -> tuple[str, bool]:
    """Return the text of a piece, and whether it is protected."""
    if found[3] is not None:
        return found[3], False
    if found[2] is not None:
        return found[2].replace("\n", ""), True
    inner = found[1][1:-1]
    if found[1][0] == "'":
        return inner, True
    return ESCAPED.sub(lambda match: match[1].replace("\n", ""), inner), True
