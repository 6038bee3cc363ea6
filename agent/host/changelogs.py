"""Which fixes a package's own changelog lists between two of its versions.

Reads `/usr/share/doc/PACKAGE/changelog.Debian.gz` (or `changelog.gz` of a native package), as dpkg installed it. A
changelog speaks of its source package, and says what its maintainer wrote: nothing is concluded from it here. What it
does not tell (documentation excluded, another version than the one installed) is None, never a guess.
"""

import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator

from debian.changelog import Changelog, ChangelogParseError
from debian.debian_support import Version

from agent.model.facts import Host

NAMES = ("changelog.Debian.gz", "changelog.gz", "changelog.Debian", "changelog")
LONGEST_TEXT = 2 << 20
MOST_ENTRIES = 200
CVE = re.compile(r"\bCVE-\d{4}-\d{4,7}\b")
TRAILER = re.compile(r"^( --.{,200}).*", re.M)
"""Cut, for python-debian takes the square of its length for the line that ends an entry: hours for a hostile one."""
REBUILD = re.compile(r"\+b\d+$")
"""A rebuild by the archive has no entry of its own in the changelog."""


def read_fixes(host: Host, package: str, running: str, installed: str) -> tuple[str, ...] | None:
    """Return the CVE ids listed after version `running` up to `installed`, sorted; None where that is not told."""
    text = _read(host, package)
    if text is None:
        return None
    found: set[str] = set()
    complete = False
    try:
        old, new = (Version(REBUILD.sub("", version)) for version in (running, installed))
        for version, entry in _entries(text):
            if version <= old:
                break
            complete = complete or version == new
            found.update(CVE.findall(entry) if version <= new else ())
    except (ChangelogParseError, ValueError):
        return None
    return tuple(sorted(found, key=_order)) if complete or old == new else None


def _order(cve: str) -> tuple[int, ...]:
    return tuple(int(part) for part in cve.split("-")[1:])


def _entries(text: str) -> Iterator[tuple[Version, str]]:
    """Yield version and text of each entry, newest first."""
    for block in Changelog(text, max_blocks=MOST_ENTRIES, allow_empty_author=True):
        yield Version(str(block.version)), "\n".join(block.changes())


def _read(host: Host, package: str) -> str | None:
    for name in NAMES:
        raw = _bytes(host.under(f"/usr/share/doc/{package}/{name}"))
        if raw is not None:
            return TRAILER.sub(r"\1", raw.decode(errors="replace"))
    return None


def _bytes(path: str) -> bytes | None:
    """Return the beginning of a changelog, which is its newest part; None where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        if not path.endswith(".gz"):
            return file.read(LONGEST_TEXT)
        try:
            return gzip.GzipFile(fileobj=file).read(LONGEST_TEXT)
        except (OSError, EOFError, zlib.error):
            return None
