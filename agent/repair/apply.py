"""Carries a repair out: writes, generates, has exim judge it, checks again; and undoes all of it where one says no."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from agent.host.mail.exim_config import GENERATED
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.model.text import printable
from agent.repair.files import back_up, read, replace
from agent.repair.propose import Edit, Repair
from agent.spawn import Done, run

TIMEOUT = 60.0
MANAGER = "/run/systemd/system"

Command = Callable[[Sequence[str]], Done]


@dataclass(frozen=True, slots=True)
class Mended:
    """What came of a repair: mended, or why not and that everything is as it was. backups: what was there before."""

    mended: bool
    words: str = ""
    backups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Before:
    """What was there before it was touched; generated None: nothing. rights: its owner, group and mode."""

    written: list[Edit]
    backups: list[str]
    generated: bytes | None
    rights: os.stat_result | None


def call(argv: Sequence[str]) -> Done:
    """Run a system program as root: the `Command` that the machine itself has."""
    return run(argv, timeout=TIMEOUT)


def apply(host: Host, repair: Repair, now: datetime, is_mended: Callable[[], str], command: Command = call) -> Mended:
    """Carry out a repair; where exim or `is_mended` refuses it, undo it.

    is_mended: runs the check again and returns why the finding is not mended, "" where it is. Whatever escapes has
    been undone.
    """
    before = _remember(host)
    try:
        for edit in repair.edits:
            if not edit.generated:
                before.backups.append(back_up(host, edit.path, edit.before, now))
                _write(host, edit, before)
        problem = _activate(host, command, repair.regenerate) or is_mended()
    except (AgentError, OSError) as trouble:
        problem = str(trouble)
    except BaseException:
        _undo(host, repair, before, command)
        raise
    if not problem:
        return Mended(True, backups=tuple(before.backups))
    return Mended(False, printable(f"{problem}; {_undo(host, repair, before, command)}"))


def _write(host: Host, edit: Edit, before: _Before) -> None:
    """It counts as written from before it is: an interrupt may come at any moment."""
    before.written.append(edit)
    try:
        replace(host, edit.path, edit.before, edit.after)
    except (AgentError, OSError):
        before.written.pop()
        raise


def _remember(host: Host) -> _Before:
    path = host.under(GENERATED)
    if not os.path.exists(path):
        return _Before([], [], None, None)
    return _Before([], [], read(host, GENERATED), os.stat(path))


def _activate(host: Host, command: Command, regenerate: bool) -> str:
    """Return what exim has against its configuration, "" where nothing."""
    if regenerate and (done := command(["update-exim4.conf"])).status != 0:
        return f"update-exim4.conf refuses: {_said(done)}"
    if (done := command(["exim4", "-bV"])).status != 0:
        return f"exim refuses: {_said(done)}"
    return _reload(host, command)


def _reload(host: Host, command: Command) -> str:
    """Have the listening daemon read its configuration, where systemd runs it; every delivery reads it anyway."""
    if not os.path.isdir(host.under(MANAGER)):
        return ""
    if command(["systemctl", "is-active", "--quiet", "exim4.service"]).status != 0:
        return ""
    done = command(["systemctl", "reload", "exim4.service"])
    return f"systemctl reload exim4 failed: {_said(done)}" if done.status != 0 else ""


def _said(done: Done) -> str:
    return " ".join(done.stderr.split())[:500] or f"status {done.status}"


def _undo(host: Host, repair: Repair, before: _Before, command: Command) -> str:
    """Put everything back and say so; what was generated is put back as it was, not generated again."""
    steps = [(edit.path, partial(_restore, host, edit)) for edit in reversed(before.written)]
    if repair.regenerate:
        steps.append((GENERATED, partial(_restore_generated, host, before)))
    left = [words for path, restore in steps if (words := _tried(path, restore))]
    _reload(host, command)
    if left:
        return "; ".join([*left, *(f"{backup} has what was there before" for backup in before.backups)])
    for backup in before.backups:
        os.unlink(backup)
    return "everything is as it was"


def _tried(path: str, restore: Callable[[], None]) -> str:
    """Each step of the way back is taken, whatever became of the others."""
    try:
        restore()
    except (AgentError, OSError) as problem:
        return f"{path} could not be put back: {problem}"
    return ""


def _restore(host: Host, edit: Edit) -> None:
    if read(host, edit.path) != edit.before:
        replace(host, edit.path, edit.after, edit.before)


def _restore_generated(host: Host, before: _Before) -> None:
    """update-exim4.conf leaves what exim refused beside what it uses, and that no longer readable for all."""
    path = host.under(GENERATED)
    for leftover in (f"{path}.tmp", *((path,) if before.generated is None else ())):
        if os.path.exists(leftover):
            os.unlink(leftover)
    if before.generated is None or before.rights is None:
        return
    if (now := read(host, GENERATED)) != before.generated:
        replace(host, GENERATED, now, before.generated)
    os.chown(path, before.rights.st_uid, before.rights.st_gid)
    os.chmod(path, before.rights.st_mode & 0o7777)
