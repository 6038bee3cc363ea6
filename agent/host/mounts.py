"""Which file system a path lies on, as the kernel lists mounts, and the only way into one that is this machine's own.

A server that does not answer, or a user's FUSE program, could hold whoever so much as stats a file of theirs. So a
path is judged by its text first, and then entered from its mount on, over no other mount and through no link.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EREMOTE

from agent.host.beneath import DIRECTORY, open_beneath
from agent.model.facts import Host

LOCAL = frozenset(
    "bcachefs btrfs erofs ext2 ext3 ext4 f2fs jfs nilfs2 overlay ramfs reiserfs squashfs tmpfs ubifs xfs zfs".split()
)
"""File systems whose answers no other machine and no user's program gives."""
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory that something is mounted on, and the type of that. `path` is as this process sees it."""

    path: str
    kind: str

    @property
    def is_local(self) -> bool:
        """Return whether nobody else has to answer for it."""
        return self.kind in LOCAL


Mounts = dict[str, Mount]


def read_mounts(host: Host) -> Mounts:
    """Return what is mounted where in our own view, by path; of several on one directory the last. Raises OSError."""
    with open(f"{host.proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mounts(file)


def parse_mounts(lines: Iterable[str]) -> Mounts:
    """Return the mounts in the text of proc_pid_mountinfo(5)."""
    found: Mounts = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) >= 5 and kinds[0]:
            path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
            found[path] = Mount(path, kinds[0])
    return found


def mount_of(mounts: Mounts, path: str) -> Mount:
    """Return the mount that the absolute `path` lies on, by its text."""
    place = path
    while place not in mounts and place != "/":
        place = place.rpartition("/")[0] or "/"
    return mounts.get(place) or Mount("/", "unknown")


def mounts_below(mounts: Mounts, roots: Sequence[str]) -> list[Mount]:
    """Return the mounts on directories below any of `roots`, by path."""
    below = tuple(f"{root.rstrip('/')}/" for root in roots)
    return [mounts[path] for path in sorted(mounts) if path.startswith(below)]


@contextmanager
def open_local(mounts: Mounts, path: str) -> Iterator[int]:
    """Give a descriptor of the directory `path` on a file system of this machine, and close it in the end.

    Raises OSError: EREMOTE where it lies on another kind, EXDEV where something was mounted meanwhile, ELOOP where
    any part of it below its mount is a link.
    """
    mount = mount_of(mounts, path)
    if not mount.is_local:
        raise OSError(EREMOTE, f"is on {mount.kind}", path)
    top = os.open(mount.path, DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_beneath(top, path[len(mount.path) :].strip("/"), DIRECTORY)
    finally:
        os.close(top)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
