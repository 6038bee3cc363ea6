"""From which site directories a process has loaded a user of MKL, and which of its MKL files are gone from the disk.

Names in maps are foreign text: they say where to look, and are told to people; nothing is decided by them. No file of
theirs is opened.
"""

import os
import re
from dataclasses import dataclass

from agent.host.mappings import read_text
from agent.model.facts import Host

MOST_MAPPINGS = 20_000
MOST_FILES = 50
_ROW = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [1-9][0-9]* *(/.*)$", re.MULTILINE)
_SITE = re.compile(rb"/(?:.*/)?(?:site|dist)-packages(?=/(?:numpy|scipy|numexpr|mkl\w*)/)")
_MKL = re.compile(rb"(/.*/lib(?:mkl_\w+|iomp5)\.so[.0-9]*) \(deleted\)")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `pid` executes code of: numpy and its like in `sites`, MKL files that were replaced or removed since."""

    pid: int
    sites: frozenset[str]
    replaced: frozenset[str]


def read_loaded(host: Host, pid: int) -> Loaded | None:
    """Return what `pid` has mapped of all that; None where that is nothing.

    Raises OSError where its mappings may not be read or it is gone, mappings.TooMany.
    """
    sites: set[bytes] = set()
    replaced: set[bytes] = set()
    for chunk in read_text(host, pid, MOST_MAPPINGS):
        if b"-packages/" in chunk or b"libmkl_" in chunk or b"libiomp5" in chunk:
            for row in _ROW.finditer(chunk):
                _note(row[1], sites, replaced)
    if not sites and not replaced:
        return None
    return Loaded(pid, frozenset(map(os.fsdecode, sites)), frozenset(map(os.fsdecode, replaced)))


def _note(name: bytes, sites: set[bytes], replaced: set[bytes]) -> None:
    site = _SITE.match(name)
    if site and len(sites) < MOST_FILES:
        sites.add(site[0].replace(b"\\012", b"\n"))
    mkl = _MKL.fullmatch(name)
    if mkl and len(replaced) < MOST_FILES:
        replaced.add(mkl[1].replace(b"\\012", b"\n"))
