"""What dpkg says of its packages, whether somebody is at work in its database, and what the logs tell of it.

The truth is dpkg's own database: `status` with the journal `updates/` on top, which a killed dpkg leaves
behind. The logs only add time, command and requester. It reads alone: dpkg's lock is never taken, nor its
file opened for writing.
"""

import fcntl
import gzip
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import BinaryIO

from agent.model.errors import AgentError, Kind
from agent.model.facts import Change, Host, PackageState, Snapshot

DATABASE = "/var/lib/dpkg"
LOCKS = ("lock-frontend", "lock")
WITHOUT_FILES = frozenset({"config-files", "not-installed"})
STATUS_FIELDS = frozenset({b"Package", b"Status", b"Architecture", b"Multi-Arch", b"Version"})

FLOCK = "hhqqi0q"
"""`struct flock`, natively aligned: Python has 64-bit file offsets on every architecture of Debian."""

APT_LOG = "/var/log/apt/history.log"
DPKG_LOG = "/var/log/dpkg.log"
APT_FIELDS = frozenset({b"Start-Date", b"End-Date", b"Commandline", b"Requested-By"})
ROTATIONS = (".2.gz", ".1.gz", ".1", "")
TAIL = 1 << 20
"""Bytes of a log that are looked at: months of entries."""
CHUNKS = 64
"""How often as much as `TAIL` is unpacked of a packed log before what follows is left unread."""
LONGEST_TEXT = 1000

Window = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Story:
    """What the logs tell of a transaction: all of it may be unknown (None, empty)."""

    begun: datetime | None = None
    command: str = ""
    requester: str = ""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of apt, or of dpkg outside of apt."""

    begun: datetime
    ended: datetime
    command: str
    requester: str


def read_snapshot(host: Host) -> Snapshot:
    """Return dpkg's packages as `key` → state, those without files left out.

    Raises AgentError(UNREADABLE) where `status` is missing, unreadable, cut off or damaged.
    """
    database = host.under(DATABASE)
    snapshot: Snapshot = {}
    try:
        for fields in chain(_read_status(f"{database}/status"), _read_updates(f"{database}/updates")):
            state = _package_state(fields, f"{database}/info")
            if state.state in WITHOUT_FILES:
                snapshot.pop(state.key, None)
            else:
                snapshot[state.key] = state
    except OSError as problem:
        raise _unreadable(problem) from problem
    return snapshot


def diff(old: Snapshot, new: Snapshot) -> tuple[Change, ...]:
    """Return what differs between two snapshots, sorted by package and architecture.

    Equal versions mean unpacked again, or brought into another state: a dpkg that was killed while it
    replaced files leaves only the state behind, and `dpkg --configure -a` changes nothing else.
    """
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return tuple(_change(old.get(key), new.get(key)) for key in keys)


def unfinished(snapshot: Snapshot) -> tuple[PackageState, ...]:
    """Return the packages that dpkg has not brought to `installed`, sorted; pending triggers count too."""
    return tuple(snapshot[key] for key in sorted(snapshot) if snapshot[key].state != "installed")


def is_interrupted(host: Host) -> bool:
    """Return whether dpkg left its journal behind; apt refuses to work then. Only meaningful once settled."""
    return bool(_update_names(host.under(f"{DATABASE}/updates")))


def is_locked(host: Host) -> bool:
    """Return whether somebody holds one of dpkg's locks (a missing file is not locked).

    Raises AgentError(UNREADABLE) where that cannot be seen.
    """
    try:
        return any(_is_held(host.under(f"{DATABASE}/{name}")) for name in LOCKS)
    except OSError as problem:
        raise _unreadable(problem) from problem


def read_story(host: Host, since: datetime | None, until: datetime, changes: Iterable[Change]) -> Story:
    """Return what the logs of apt and dpkg tell of `changes`, made between `since` and `until`.

    Several commands are joined in order. Without a beginning (`since` None) nothing can be told apart. The
    logs are optional, are rotated, have local times without a zone, and `dpkg --root` elsewhere writes into
    them: a run of plain dpkg counts only where it names one of the changed packages.
    """
    if since is None:
        return Story()
    window = (since.replace(microsecond=0), until)
    runs = list(_apt_runs(_read_log(host.under(APT_LOG), since), window))
    keys = frozenset(os.fsencode(f"{change.package}:{change.arch}") for change in changes)
    for run in _dpkg_runs(_read_log(host.under(DPKG_LOG), since), window, keys):
        if not any(other.begun <= run.begun <= other.ended for other in runs):
            runs.append(run)
    runs.sort(key=lambda run: run.begun)
    return Story(
        begun=runs[0].begun if runs else None,
        command=_joined(run.command for run in runs),
        requester=_joined(run.requester for run in runs),
    )


def _unreadable(problem: OSError) -> AgentError:
    hint = "only root may read it" if isinstance(problem, PermissionError) else "is this a Debian system?"
    return AgentError(Kind.UNREADABLE, f"{problem.filename or DATABASE}: {problem.strerror}", hint)


def _read_status(path: str) -> Iterator[dict[bytes, bytes]]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if os.pread(file.fileno(), 2, max(size - 2, 0)) != b"\n\n":
            raise _damaged(path, "it is empty or cut off")
        yield from _stanzas(file, STATUS_FIELDS)


def _damaged(path: str, how: str) -> AgentError:
    return AgentError(Kind.UNREADABLE, f"{path} is damaged: {how}", f"compare it with {path}-old")


def _read_updates(directory: str) -> Iterator[dict[bytes, bytes]]:
    for name in _update_names(directory):
        with open(f"{directory}/{name}", "rb") as file:
            yield from _stanzas(file, STATUS_FIELDS)


def _update_names(directory: str) -> list[str]:
    """Return the entries of the journal in order, by dpkg's own rule: names of digits (`tmp.i` is none)."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise _unreadable(problem) from problem
    return sorted((name for name in names if name.isascii() and name.isdigit()), key=int)


def _stanzas(lines: Iterable[bytes], wanted: frozenset[bytes]) -> Iterator[dict[bytes, bytes]]:
    """Yield the `wanted` one-line fields of each paragraph that has any."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        if line == b"\n":
            if fields:
                yield fields
            fields = {}
            continue
        name, _, value = line.partition(b":")
        if name in wanted:
            fields[name] = value.strip()
    if fields:
        yield fields


def _package_state(fields: dict[bytes, bytes], info: str) -> PackageState:
    name, arch, version = (_word(fields.get(key, b"")) for key in (b"Package", b"Architecture", b"Version"))
    words = fields.get(b"Status", b"").split()
    if not name or len(words) != 3:
        raise _damaged(f"{os.path.dirname(info)}/status", f"package {name or '?'} has no state")
    state = _word(words[2])
    if state in WITHOUT_FILES:
        return PackageState(name, arch, version, state, "")
    file_list = f"{name}:{arch}.list" if fields.get(b"Multi-Arch") == b"same" else f"{name}.list"
    return PackageState(name, arch, version, state, _stamp(f"{info}/{file_list}"))


def _word(value: bytes) -> str:
    """dpkg writes ASCII here; whatever else somebody forced in is still text that can be stored and compared."""
    return value.decode("ascii", "backslashreplace")


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ""
    return f"{found.st_ino}-{found.st_mtime_ns}"


def _change(old: PackageState | None, new: PackageState | None) -> Change:
    known = new or old
    assert known
    return Change(known.name, known.arch, old.version if old else None, new.version if new else None)


def _is_held(path: str) -> bool:
    """A frontend has a write lock. A mere read lock needs no open for writing: its end would wake nobody."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        question = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    finally:
        os.close(descriptor)
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


def _apt_runs(lines: Iterable[bytes], window: Window) -> Iterator[_Run]:
    for fields in _stanzas(lines, APT_FIELDS):
        begun = _moment(fields.get(b"Start-Date", b""), window)
        if begun:
            ended = _moment(fields.get(b"End-Date", b""), window) or window[1]
            command, requester = fields.get(b"Commandline", b""), fields.get(b"Requested-By", b"")
            yield _Run(begun, ended, os.fsdecode(command), os.fsdecode(requester))


def _dpkg_runs(lines: Iterable[bytes], window: Window, keys: frozenset[bytes]) -> Iterator[_Run]:
    begun = None
    for line in lines:
        words = line.split()
        if words[2:3] == [b"startup"]:
            begun = _moment(b" ".join(words[:2]), window)
        elif begun and not keys.isdisjoint(words[3:5]):
            yield _Run(begun, begun, "dpkg", "")
            begun = None


def _moment(text: bytes, window: Window) -> datetime | None:
    """Return the local time `text` if it lies in the window; the hour that comes twice is tried as both."""
    try:
        local = datetime.fromisoformat(b" ".join(text.split()).decode())
        readings = (local.astimezone(), local.replace(fold=1).astimezone())
    except (ValueError, OverflowError):
        return None
    return next((moment for moment in readings if window[0] <= moment <= window[1]), None)


def _joined(texts: Iterable[str]) -> str:
    whole = "; ".join(dict.fromkeys(text for text in texts if text))
    return whole if len(whole) <= LONGEST_TEXT else f"{whole[:LONGEST_TEXT]}…"


def _read_log(path: str, since: datetime) -> Iterator[bytes]:
    """Yield the last lines of a log and of its rotations that were written after `since`, oldest first."""
    for suffix in ROTATIONS:
        yield from _read_tail(f"{path}{suffix}", since).splitlines(keepends=True)


def _read_tail(path: str, since: datetime) -> bytes:
    """Return at most the last `TAIL` bytes; none where it is no file, older than `since`, or broken."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mtime < since.timestamp():
                return b""
            if path.endswith(".gz"):
                return _unpack_tail(file)
            file.seek(max(found.st_size - TAIL, 0))
            return file.read(TAIL)
    except (OSError, EOFError, zlib.error):
        return b""


def _unpack_tail(file: BinaryIO) -> bytes:
    tail = b""
    with gzip.open(file) as stream:
        for _ in range(CHUNKS):
            chunk = stream.read(TAIL)
            if not chunk:
                break
            tail = (tail + chunk)[-TAIL:]
    return tail
