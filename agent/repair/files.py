"""Replaces a file of root's as a whole, or not at all: owner, mode, attributes and symbolic links stay.

What somebody else changed meanwhile is never overwritten, and no place that others may write is written to.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime

from agent.model.errors import AgentError, Kind
from agent.model.facts import Host

LARGEST = 4 << 20


def read(host: Host, path: str) -> bytes:
    """Return a regular file. Raises AgentError(UNREADABLE) where there is none, or one that is far too large."""
    try:
        with open(os.open(host.under(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise AgentError(Kind.UNREADABLE, f"{path} is no regular file", "edit it by hand")
            data = handle.read(LARGEST + 1)
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{path}: {problem.strerror}") from problem
    if len(data) > LARGEST:
        raise AgentError(Kind.UNREADABLE, f"{path} is larger than {LARGEST} bytes", "edit it by hand")
    return data


def place(host: Host, path: str) -> str:
    """Return where the content of `path` really lies: a symbolic link may lead to another file below /etc of root's.

    Raises AgentError(DENIED) where it leads elsewhere, where others may write there, or where a rename would part it
    from a second name.
    """
    real = os.path.realpath(host.under(path))
    top = host.under("/etc") if path.startswith("/etc/") else os.path.dirname(host.under(path))
    if not real.startswith(f"{os.path.realpath(top)}/"):
        raise AgentError(Kind.DENIED, f"{path} leads to {real}, out of {top}", "edit it by hand")
    for directory in _up(os.path.dirname(real), os.path.realpath(host.root)):
        status = os.stat(directory)
        others = status.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0))
        if status.st_uid != os.geteuid() or others:
            raise AgentError(Kind.DENIED, f"{path} lies in {directory}, where others may write", "edit it by hand")
    if os.stat(real).st_nlink != 1:
        raise AgentError(Kind.DENIED, f"{path} has a second name (a hard link)", "edit it by hand")
    return real


def _up(directory: str, root: str) -> Iterator[str]:
    while directory != root:
        yield directory
        directory = os.path.dirname(directory)


def replace(host: Host, path: str, before: bytes, after: bytes) -> None:
    """Make a file that holds `before` hold `after`. Raises AgentError or OSError, and then nothing has changed."""
    real = place(host, path)
    temporary = _copy(real, after)
    try:
        if read(Host(), real) != before:
            raise AgentError(Kind.DENIED, f"{path} was changed by somebody else meanwhile", "look at it, and try again")
        os.replace(temporary, real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):
        _sync(os.path.dirname(real))


def back_up(host: Host, path: str, data: bytes, now: datetime) -> str:
    """Write `data` beside a file as NAME.aftercare-DATE, with its owner and mode, and return that path.

    Raises AgentError(DENIED) where there is such a file already.
    """
    real = place(host, path)
    backup = f"{real}.aftercare-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    temporary = _copy(real, data)
    try:
        os.link(temporary, backup)
    except FileExistsError as problem:
        raise AgentError(Kind.DENIED, f"{backup} exists already", "try again in a second") from problem
    finally:
        os.unlink(temporary)
    _sync(os.path.dirname(real))
    return backup


def _copy(real: str, data: bytes) -> str:
    """Write a file beside another one, like it but for its content, safely on disk."""
    status = os.stat(real)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(real)}.", dir=os.path.dirname(real))
    try:
        with open(descriptor, "wb") as handle:
            handle.write(data)
            os.fchown(descriptor, status.st_uid, status.st_gid)
            for name in os.listxattr(real):
                with contextlib.suppress(OSError):
                    os.setxattr(descriptor, name, os.getxattr(real, name))
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            handle.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
