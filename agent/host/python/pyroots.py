"""Where Python environments may be: Debian's own places, homes, what conda notes down, and mounts below all of them.

Only names are read here. What users write (conda's list) names places to try, and is bounded.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from agent.host.beneath import read_beneath, read_stamp
from agent.host.kernel import read_beginning
from agent.host.mounts import Mounts, mount_of, mounts_below, open_local
from agent.host.python.pywalk import is_passed_over
from agent.model.facts import Host

SYSTEM = ("/usr/lib/python3", "/usr/local", "/opt", "/srv", "/var/lib")
SHARED = ("/home",)
"""For homes that /etc/passwd does not know."""
IN_HOME = (".cache/pypoetry/virtualenvs",)
"""Environments that some keep among caches, which are not entered otherwise."""
NO_HOMES = ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr", "/var/run")
"""Homes of system users that are none of their own: these, what is below them, and what holds any of them."""
PASSWD = "/etc/passwd"
LARGEST_PASSWD = 4 << 20
HINTS = ".conda/environments.txt"
MOST_HINTS = 200
LARGEST_HINTS = 64 << 10


def find_roots(host: Host, mounts: Mounts, extra: Sequence[str] = ()) -> list[str]:
    """Return the directories to look below, absolute in the host, the most trusted first.

    extra: what the admin has named. Mounts below any of these are roots of their own, since no walk leaves its mount.
    """
    homes = read_homes(host)
    hinted = [hint for home in homes for hint in _read_hints(host, mounts, home)]
    named = [*SYSTEM, *extra, *homes, *(f"{home}/{place}" for home in homes for place in IN_HOME), *SHARED]
    roots = list(dict.fromkeys(_real(host, mounts, root) for root in named))
    below = [_within(host, mount.path) for mount in mounts_below(mounts, [host.under(root) for root in roots])]
    own = (path for path in below if not is_passed_over(path))
    return list(dict.fromkeys((*roots, *own, *(path for path in hinted if not _is_below(path, SYSTEM)))))


def read_homes(host: Host) -> list[str]:
    """Return the homes in the host's /etc/passwd, root's and those of low user numbers first."""
    known = sorted((uid, row[5].rstrip("/")) for uid, row in _read_accounts(host))
    return list(dict.fromkeys(home for _, home in known if _is_home(home)))


def read_names(host: Host) -> dict[int, str]:
    """Return the names of users by number, as the host's /etc/passwd has them."""
    return {uid: row[0] for uid, row in reversed(list(_read_accounts(host)))}


def _read_accounts(host: Host) -> Iterator[tuple[int, list[str]]]:
    text = os.fsdecode(read_beginning(host.under(PASSWD), LARGEST_PASSWD) or b"")
    for line in text.split("\n"):
        row = line.split(":")
        if len(row) == 7 and row[2].isascii() and row[2].isdecimal() and len(row[2]) < 11:
            yield int(row[2]), row


def _is_home(path: str) -> bool:
    if not path.startswith("/") or ".." in path.split("/"):
        return False
    return not _is_below(path, NO_HOMES[1:]) and not any(_is_below(place, (path,)) for place in (*NO_HOMES, *SYSTEM))


def _is_below(path: str, places: Iterable[str]) -> bool:
    """Return whether `path` is one of `places` or below one."""
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _read_hints(host: Host, mounts: Mounts, home: str) -> Iterator[str]:
    """Yield the environments that conda has noted down for a user."""
    try:
        with open_local(mounts, host.under(home)) as directory:
            text = os.fsdecode(read_beneath(directory, HINTS, LARGEST_HINTS) or b"")
    except OSError:
        return
    for line in text.split("\n")[:MOST_HINTS]:
        path = line.strip().rstrip("/")
        if path.startswith("/") and not {"..", "."}.intersection(path.split("/")) and _is_conda(host, mounts, path):
            yield path


def _is_conda(host: Host, mounts: Mounts, path: str) -> bool:
    """Return whether a conda environment is there: a list may name any directory, however large."""
    try:
        with open_local(mounts, host.under(path)) as directory:
            return stat.S_ISDIR(read_stamp(directory, "conda-meta")[1].st_mode)
    except OSError:
        return False


def _real(host: Host, mounts: Mounts, root: str) -> str:
    """Return a root without links: the admin's own (/home elsewhere) are followed, on this machine's file systems."""
    path = host.under(root)
    with contextlib.suppress(OSError):
        if mount_of(mounts, path).is_local:
            return _within(host, os.path.realpath(path, strict=True))
    return root


def _within(host: Host, path: str) -> str:
    return path if host.root == "/" else path.removeprefix(host.root) or "/"
