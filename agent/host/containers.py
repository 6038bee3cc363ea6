"""What containers are called and kept by, as the tools say that run them, and where a process was locked into.

It is looked up in files of root's own alone, by an id that systemd or the kernel gave, and serves people only.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any

from agent.model.facts import Host

DOCKER = "/var/lib/docker/containers"
PODMAN = "/var/lib/containers/storage/overlay-containers"
LISTS = ("containers.json", "volatile-containers.json")
"""The second holds those that go with their end (`--rm`), as of podman 5."""
KEPT = "/run/containers/storage/overlay-containers"
LXC = "/var/lib/lxc"
LONGEST_PID = 10
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
    return next((item["names"][0] for item in _podmans(host) if item["id"] == id), "")


def _podmans(host: Host) -> Iterator[Any]:
    for path in (host.under(f"{PODMAN}/{name}") for name in LISTS):
        if os.path.exists(path):
            yield from _read_json(path)


def read_keeper(host: Host, id: str) -> int:
    """Return the process (conmon) by which root's podman keeps the container `id`; 0 where it is not known."""
    if not _ID.fullmatch(id):
        return 0
    try:
        return int(_read(host.under(f"{KEPT}/{id}/userdata/conmon.pid"), LONGEST_PID))
    except (OSError, ValueError):
        return 0


def is_lxc(host: Host, name: str) -> bool:
    """Return whether a container in a control group of LXC's is of its own tools: Incus and LXD use the same ones."""
    return bool(_NAME.fullmatch(name)) and os.path.isfile(host.under(f"{LXC}/{name}/config"))


def _read_json(path: str) -> Any:
    return json.loads(_read(path, LARGEST))


def _read(path: str, most: int) -> bytes:
    """Raises OSError also where somebody but root may have written the file."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
            raise PermissionError(path)
        return file.read(most)


def read_chroot(host: Host, pid: int) -> str:
    """Return the directory that `pid` was locked into, as this host knows it; empty where it is not, or is gone."""
    try:
        root = os.readlink(f"{host.proc}/{pid}/root")
    except OSError:
        return ""
    return "" if root == "/" else root
