"""A unit of a user's own manager, `systemd --user`: by a name that no unit of the system's can have.

`user@1000.service/foo.service` is what user 1000 calls `foo.service`. Only the number is systemd's word. The rest is
the user's, so that it is taken only where it is a unit's name by systemd's own rules; nothing is decided by it but
which of that user's own units is meant.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

MOST = 50
"""So many units of one user are told apart; what he runs beyond them counts to his manager."""
FEW = 4
"""So many processes of each of them are told one by one: he may have thousands, with names as long as a page."""
MOST_A_DAY = 100
"""So many restarts of one user's units may a day see, however many names he has for them."""

LONGEST = 255
_MANAGER = re.compile(r"user@(?P<uid>0|[1-9][0-9]{0,9})\.service")
_NAME = re.compile(r"(?![-@.])[A-Za-z0-9:_.\\@-]+\.(?:service|scope)")
_OF_THE_MANAGER = "init.scope"
_TEMPLATE = re.compile(r"@\.[a-z]+")
_ONCE = re.compile(r"run-.*\.service")
"""What systemd-run calls a command that is given no name."""


@dataclass(frozen=True, slots=True)
class UserUnit:
    """uid: the user's; name: as his manager has it, a service or a scope."""

    uid: int
    name: str

    @property
    def manager(self) -> str:
        """Return the system's unit that his manager runs in."""
        return f"user@{self.uid}.service"

    @property
    def subject(self) -> str:
        """Return the name by which it is told, and by which rules match it."""
        return f"{self.manager}/{self.name}"

    @property
    def job(self) -> str:
        """Return the system's unit in which its restart is asked for: as long as that runs, it is under way."""
        return f"aftercare-user-{self.uid}-{sha256(self.name.encode()).hexdigest()[:16]}.service"

    @property
    def is_scope(self) -> bool:
        """Whether the manager only groups what was started elsewhere."""
        return self.name.endswith(".scope")

    @property
    def runs_once(self) -> bool:
        """Whether it is a command that somebody gave to systemd-run, which would do its work again."""
        return _ONCE.fullmatch(self.name) is not None


def uid_of(manager: str) -> int | None:
    """Return whose manager runs in the system's unit `manager`; None for any other unit."""
    found = _MANAGER.fullmatch(manager)
    return int(found["uid"]) if found else None


def named(uid: int, name: str) -> UserUnit | None:
    """Return the unit that user `uid` calls `name`.

    None where systemd would not call a service or scope so, and for that in which the manager itself runs.
    """
    is_name = len(name) <= LONGEST and _NAME.fullmatch(name) and not _TEMPLATE.search(name)
    return UserUnit(uid, name) if is_name and name != _OF_THE_MANAGER else None


def parse(subject: str) -> UserUnit | None:
    """Return what `UserUnit.subject` names; None for a unit of the system's and for anything else."""
    manager, slash, name = subject.partition("/")
    uid = uid_of(manager) if slash else None
    return None if uid is None else named(uid, name)


def kept_apart(found: Iterable[UserUnit]) -> list[UserUnit]:
    """Return those of one user's units that are told apart: services before scopes, and no more than MOST."""
    return sorted(set(found), key=lambda unit: (unit.is_scope, unit.name))[:MOST]


def as_user(uid: int) -> tuple[str, ...]:
    """Return what stands before a command that root has done as that user, below his manager."""
    return ("systemd-run", "--pipe", "--quiet", f"--uid={uid}", f"--setenv=XDG_RUNTIME_DIR=/run/user/{uid}")


def by_hand(verb: str, unit: str) -> str:
    """Return the command by which root has systemd, or the user's own manager, do `verb` with `unit`."""
    theirs = parse(unit)
    if theirs is None:
        return f"systemctl {verb} {shlex.quote(unit)}"
    return shlex.join((*as_user(theirs.uid), "systemctl", "--user", verb, theirs.name))
