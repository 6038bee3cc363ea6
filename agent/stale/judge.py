"""Whether what a process executes is old: recorded numbers in, a verdict out. Pure.

A name proves nothing, for any user can forge one. What proves something is that a process maps the very inode
that dpkg's file had before it was replaced; with a history that is all there is. Without one, a file counts
that dpkg does not have now, that has no name left, and that was mapped under the name of a file of dpkg's:
that is likely at most.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.model.facts import FileId, Process, Retired, StaleFile, StaleProcess
from agent.model.findings import Confidence

DELETED = " (deleted)"
UNPACKED = (".dpkg-new", ".dpkg-tmp")
BEFORE_US = 0
"""The `Retired.transaction` of files that were old before there was a history."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One old file in one process.

    confidence: of its being that file (see `confirm`). same: whether what lies at its path now has the same
    content; None where that could not be found out.
    """

    old: Retired
    confidence: Confidence
    same: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one process came to. stale None: it has none but identical files (their paths).

    transaction: the last one that replaced any of its stale files.
    """

    process: Process
    stale: StaleProcess | None
    identical: tuple[str, ...]
    confidence: Confidence
    transaction: int


def confirm(old: Retired, seen: FileId | None) -> Confidence | None:
    """Return how sure it is that a mapped inode is the retired file `old`; None: it is another one.

    seen: what is mapped by the kernel's own word; None where it may not be asked. An inode number that went
    to a new file has another birth.
    """
    if seen is None:
        return Confidence.LIKELY
    if (seen.device, seen.inode) != (old.id.device, old.id.inode):
        return None
    if not (seen.born and old.id.born):
        return Confidence.LIKELY
    return Confidence.CERTAIN if seen.born == old.id.born else None


def original_name(shown: str) -> str:
    """Return the name that a file had when it was mapped, from the one that maps shows for it.

    One ` (deleted)` and one suffix of dpkg's are taken off: dpkg unpacks as `.dpkg-new` and renames.
    """
    name = shown.removesuffix(DELETED)
    return next((name.removesuffix(suffix) for suffix in UNPACKED if name.endswith(suffix)), name)


def is_gone(shown: str, links: int | None) -> bool:
    """Return whether a mapped file has no name left; links None: unknown, so what maps shows has to do."""
    return shown.endswith(DELETED) if links is None else links == 0


def judge(process: Process, sightings: Iterable[Sighting], installed: Mapping[str, str]) -> Verdict:
    """Return what the old files in `process` come to; installed: package → version.

    Certain is only what is proven to be that file, to be of another content, and to be of a recorded version.
    """
    seen = sorted(sightings, key=lambda sighting: sighting.old.path)
    different = [sighting for sighting in seen if not sighting.same]
    files = tuple(dict.fromkeys(_stale_file(sighting.old, installed) for sighting in different))
    who = (process.pid, process.start, process.exe, process.comm, process.uid)
    stale = StaleProcess(*who, files, process.tty, process.user)
    certain = any(_is_certain(sighting) for sighting in different)
    return Verdict(
        process=process,
        stale=stale if files else None,
        identical=tuple(dict.fromkeys(sighting.old.path for sighting in seen if sighting.same)),
        confidence=Confidence.CERTAIN if certain else Confidence.LIKELY,
        transaction=max((sighting.old.transaction for sighting in different), default=BEFORE_US),
    )


def _is_certain(sighting: Sighting) -> bool:
    proven = sighting.confidence is Confidence.CERTAIN and sighting.same is False
    return proven and sighting.old.version is not None


def _stale_file(old: Retired, installed: Mapping[str, str]) -> StaleFile:
    return StaleFile(old.path, old.package, old.version, installed.get(old.package))
