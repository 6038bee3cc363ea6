"""What was read from the machine, as values: `host/` makes them, engines and `restart/` judge them.

Paths are `str` with surrogateescape (PEP 383), so that every byte sequence survives; times are aware
datetimes; a pid never stands without its start time.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Host:
    """Where the machine is looked at; tests and `--root` point elsewhere. No trailing slashes but root's own."""

    root: str = "/"
    proc: str = "/proc"

    def under(self, path: str) -> str:
        """Return the absolute `path` below this host's root."""
        return path if self.root == "/" else f"{self.root}{path}"


@dataclass(frozen=True, slots=True)
class FileId:
    """What no path can forge: device and inode as `stat` gives them, and the inode's birth (ns; 0 unknown)."""

    device: int
    inode: int
    born: int


@dataclass(frozen=True, slots=True)
class Indexed:
    """A file that may hold code, as dpkg has it now."""

    path: str
    package: str
    version: str
    id: FileId


@dataclass(frozen=True, slots=True)
class Retired:
    """A file that dpkg had at `path` until `transaction`; `version` None: it was old before we came."""

    path: str
    package: str
    version: str | None
    id: FileId
    transaction: int


@dataclass(frozen=True, slots=True)
class PackageState:
    """One row of dpkg's status: `state` is its third word; `stamp` changes whenever dpkg unpacks it again."""

    name: str
    arch: str
    version: str
    state: str
    stamp: str

    @property
    def key(self) -> str:
        return f"{self.name}:{self.arch}"


@dataclass(frozen=True, slots=True)
class Change:
    """One package in a transaction; `old` None: newly installed; `new` None: removed; equal: reinstalled."""

    package: str
    arch: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """One settled change of dpkg's status. Times, command and requester come from logs and may be unknown."""

    id: int
    begun: datetime | None
    ended: datetime
    command: str
    requester: str
    changes: tuple[Change, ...]
    unfinished: tuple[PackageState, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """One change of a package that history knows: `transaction` began (None: unknown) and ended then."""

    transaction: int
    package: str
    begun: datetime | None
    ended: datetime
    old: str | None
    new: str | None


Snapshot = dict[str, PackageState]
"""dpkg's status as `PackageState.key` → state; packages without files (config-files, not-installed) are left out."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, and the cgroup that the kernel names for it. tty: such as `pts/0`; user: as /etc/passwd names it."""

    pid: int
    start: datetime
    uid: int
    exe: str
    comm: str
    cgroup: str
    tty: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Which retired files a process executes code from, by `FileId.device` and `.inode`."""

    pid: int
    ids: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of a unit. `pulls`: units that stop when it stops. Lists are sorted."""

    name: str
    description: str = ""
    load: str = "loaded"
    active: str = "active"
    sub: str = "running"
    kind: str = "simple"
    control_group: str = ""
    main_pid: int = 0
    invocation: str = ""
    can_start: bool = True
    can_stop: bool = True
    needs_reload: bool = False
    transient: bool = False
    kill_mode: str = "control-group"
    result: str = "success"
    job: str = ""
    fragment: str = ""
    programs: tuple[str, ...] = ()
    pulls: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    accept: bool = False
    timeout_stop: float = 90.0
    timeout_start: float = 90.0
    start_burst: int = 5
    start_interval: float = 10.0


@dataclass(frozen=True, slots=True)
class StaleFile:
    """`running` None: what the process runs is not a recorded fact; `installed` None: the package is gone."""

    path: str
    package: str
    running: str | None
    installed: str | None


@dataclass(frozen=True, slots=True)
class StaleProcess:
    """A process that executes code from `files`; tty, user: see `Process`."""

    pid: int
    start: datetime
    exe: str
    comm: str
    uid: int
    files: tuple[StaleFile, ...]
    tty: str = ""
    user: str = ""
