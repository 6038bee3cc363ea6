"""What containers are called by the tools that run them, and which directory a process was locked into.

A name is looked up in files of root's own alone, by an id that systemd or the kernel gave; it serves people only.
"""

import json
import os
import re
import stat
from collections.abc import Callable
from typing import Any

from agent.model.facts import Host

DOCKER = "/var/lib/docker/containers"
PODMAN = "/var/lib/containers/storage/overlay-containers/containers.json"
LARGEST = 4 << 20
_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""What docker and podman accept."""


def read_container_name(host: Host, kind: str, id: str) -> str:
    """Return the name of a `docker` or `podman` container of root's; empty where it is not known."""
    if not _ID.fullmatch(id):
        return ""
    look: Callable[[Host, str], Any] | None = {"docker": _docker, "podman": _podman}.get(kind)
    try:
        name = look(host, id) if look else ""
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else ""


def _docker(host: Host, id: str) -> Any:
    return _read_json(host.under(f"{DOCKER}/{id}/config.v2.json"))["Name"].removeprefix("/")


def _podman(host: Host, id: str) -> Any:
    return next((item["names"][0] for item in _read_json(host.under(PODMAN)) if item["id"] == id), "")


def _read_json(path: str) -> Any:
    """Raises OSError also where somebody but root may have written the file."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
            raise PermissionError(path)
        return json.loads(file.read(LARGEST))


def read_chroot(host: Host, pid: int) -> str:
    """Return the directory that `pid` was locked into, as this host knows it; empty where it is not, or is gone."""
    try:
        root = os.readlink(f"{host.proc}/{pid}/root")
    except OSError:
        return ""
    return "" if root == "/" else root
