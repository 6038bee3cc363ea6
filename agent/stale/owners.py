"""Whose processes these are, in words for people: a container, a guest, a snap, by the name that its owner knows. Pure.

What decides is the unit, or a control group that no unit is above: only root makes those. Below a user's own manager
it is the user's text, and said to be; that it is this user's is systemd's word. Nothing is ever decided by a name.
The paths of podman, docker, LXC and systemd-nspawn were seen with Debian's own packages of them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from posixpath import basename

from agent.model import users
from agent.model.facts import Unit
from agent.stale.disposition import RUNNING

SHORT = 12
"""Digits of a container's id that its tools show."""
_ID = r"(?P<id>[0-9a-f]{64})"
_UNITS = (
    ("docker", rf"docker-{_ID}\.scope"),
    ("podman", rf"libpod-(?:conmon-)?{_ID}\.scope"),
    ("kubernetes", rf"(?:crio|cri-containerd)-{_ID}\.scope"),
    ("qemu", r"machine-qemu-\d+-(?P<name>.+)\.scope"),
    ("lxc", r"machine-lxc-\d+-(?P<name>.+)\.scope"),
    ("machine", r"machine-(?P<name>.+)\.scope"),
    ("machine", r"systemd-nspawn@(?P<name>.+)\.service"),
    ("lxc", r"lxc@(?P<name>.+)\.service"),
    ("snap", r"snap\.(?P<name>[^.]+)\..+"),
    ("flatpak", r"app-flatpak-(?P<name>.+)-\d+\.scope"),
)
_GROUPS = (
    ("docker", rf"/docker/{_ID}"),
    ("podman", rf"(?:/machine)?(?:/libpod_parent)?/libpod-{_ID}"),
    ("kubernetes", rf"/kubepods(?:/[a-z]+)?/pod[^/]+/{_ID}"),
    ("lxc", r"/lxc(?:\.payload\.|\.monitor\.|/)(?P<name>[^/]+)"),
    ("qemu", r"/machine/(?:qemu-\d+-)?(?P<name>[^/]+)\.libvirt-qemu"),
)
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _UNITS)
_TOP = tuple((kind, re.compile(rf"(?P<group>{pattern})(?:/.*)?")) for kind, pattern in _GROUPS)
_PAYLOAD = (("podman", re.compile(rf"/libpod-payload-{_ID}(?:/.*)?")),)
"""Of `podman run --cgroups=split`, below the unit that ran it: what a Quadlet file makes."""
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_GUEST = re.compile(r"/qemu\.slice/(?P<name>[^/]+)\.scope")

WORDS = {
    "docker": "docker container",
    "podman": "podman container",
    "kubernetes": "Kubernetes container",
    "lxc": "LXC container",
    "machine": "container or machine",
    "qemu": "virtual machine",
    "snap": "snap",
    "flatpak": "flatpak",
    "user": "user",
}
CONTAINERS = frozenset({"docker", "podman", "kubernetes", "lxc", "machine", "qemu"})
"""Kinds that are restarted with the tool that runs them, and never from outside."""


@dataclass(frozen=True, slots=True)
class Owner:
    """kind: a key of WORDS. id: of a container, in full. own_word: a user chose all of it himself. uid: of a user."""

    kind: str
    id: str = ""
    name: str = ""
    own_word: bool = False
    uid: int | None = None

    @property
    def text(self) -> str:
        """Return it in words; foreign text, to be made printable."""
        short = self.id[:SHORT]
        named = f"{self.name} ({short})" if self.name and short else self.name or short
        return f"{WORDS[self.kind]} {named}{', by its own account' if self.own_word else ''}"


def owner_of(unit: Unit | None, cgroup: str) -> Owner | None:
    """Return what the processes in `cgroup`, which `unit` holds, belong to; None for this host itself."""
    if unit is None:
        return next(_matching(cgroup, _TOP), None)
    guest = _GUEST.fullmatch(unit.control_group)
    if guest:
        return Owner("qemu", name=unescape(guest["name"]))
    manager = unit.name.partition("/")[0]
    if not manager.startswith("user@"):
        return next(_matching(unescape(unit.name), _PATTERNS), None) or _payload(unit, cgroup)
    below = (unescape(part) for part in reversed(cgroup.partition(f"/{manager}")[2].split("/")))
    claims = (_claimed(found) for part in below for found in _matching(part, _PATTERNS))
    return next(claims, _user(unit))


def _payload(unit: Unit, cgroup: str) -> Owner | None:
    """The names of groups below a unit are taken from podman alone, which makes the first of them."""
    if not any(basename(program) == "podman" for program in unit.programs):
        return None
    return next(_matching(cgroup.removeprefix(unit.control_group), _PAYLOAD), None)


def group_of(cgroup: str) -> str:
    """Return which control group, above which there is no unit, an engine made for its container; empty: none."""
    return next((match["group"] for _, pattern in _TOP if (match := pattern.fullmatch(cgroup))), "")


def restart_words(owner: Owner, unit: Unit | None, units: Mapping[str, Unit], keeper: int = 0) -> tuple[str, ...]:
    """Return the command that has `owner` restarted by what runs it; empty: there is none that always helps.

    It is root's to run, and the user's own where he alone says what it is. unit: what holds its processes. units: all
    there are. keeper: the process by which podman keeps the container. What a unit keeps is restarted by that unit:
    told to podman itself, the unit ends and removes it (tried).
    """
    named = owner.name or owner.id[:SHORT]
    if owner.own_word:
        return ("podman", "restart", named) if unit and _is_kept_by_podman(owner, unit, units) else ()
    match owner.kind:
        case "docker":
            return ("docker", "restart", named)
        case "podman":
            own = (one for one in units.values() if keeper and not users.parse(one.name))
            kept = next((one.name for one in own if one.main_pid == keeper), "")
            return ("systemctl", "restart", kept) if kept else ("podman", "restart", named)
        case "lxc":
            kept = f"lxc@{owner.name}.service"
            is_up = kept in units and units[kept].active in RUNNING
            return ("systemctl", "restart", kept) if is_up else ("lxc-stop", "--reboot", "--name", named)
        case "machine" if unit and unit.name.endswith(".service"):
            return ("systemctl", "restart", unit.name)
        case "machine":
            return ("machinectl", "reboot", named)
    return ()


def _is_kept_by_podman(owner: Owner, unit: Unit, units: Mapping[str, Unit]) -> bool:
    """Whether a user's container has its keeper in a scope of podman's making, and not in a unit of his."""
    return owner.kind == "podman" and f"{unit.name.partition('/')[0]}/libpod-conmon-{owner.id}.scope" in units


def _user(unit: Unit) -> Owner | None:
    theirs = users.parse(unit.name)
    return Owner("user", name=str(theirs.uid), uid=theirs.uid) if theirs else None


def _matching(text: str, patterns: tuple[tuple[str, re.Pattern[str]], ...]) -> Iterator[Owner]:
    for kind, pattern in patterns:
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            yield Owner(kind, found.get("id", ""), found.get("name", ""))


def _claimed(owner: Owner) -> Owner:
    return Owner(owner.kind, owner.id, owner.name, own_word=True)


def unescape(name: str) -> str:
    """Return a part of a unit's name as it was before systemd escaped it: `qemu\\x2d1\\x2dweb` is `qemu-1-web`."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), name)
