"""Notes that a reboot is needed where others look for it: /run/reboot-required, and our line in its .pkgs.

It only ever adds: no line of others is touched, and nothing is removed. The writing itself is handed in.
"""

import os
from collections.abc import Callable

FLAG = "reboot-required"
LINE = b"aftercare"
TEXT = "*** System restart required ***\n"
"""What the file has by custom; those who act on it only ask whether it is there."""
MOST_BYTES = 1 << 20

Append = Callable[[str, str], object]


def raise_flag(append: Append, directory: str = "/run") -> bool:
    """Raise the flag in `directory` unless it is raised and has our line; return whether anything was written.

    append: adds a text to the end of a file, and makes the file where it is missing. Raises what it raises, and
    OSError where what is there cannot be read.
    """
    flag = f"{directory}/{FLAG}"
    listed = _read(f"{flag}.pkgs")
    missing = LINE not in (line.strip() for line in listed.split(b"\n"))
    if missing:
        append(f"{flag}.pkgs", "aftercare\n" if listed[-1:] in (b"", b"\n") else "\naftercare\n")
    raised = os.path.lexists(flag)
    if not raised:
        append(flag, TEXT)
    return missing or not raised


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        return file.read(MOST_BYTES)
