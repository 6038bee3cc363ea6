"""Which kernel runs, which ones are installed, whose kernel it is, and who asked for a reboot.

Nothing is executed and nothing judged. What an image does not tell in its x86 boot header (compressed EFI and ARM
images do not) is empty, never guessed. Layout of the header: Documentation/arch/x86/boot.rst of Linux.
"""

import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, PackageState, Snapshot

RELEASE = re.compile(
    r"\d+(?:\.\d+)+(?:[+~][0-9A-Za-z.+~]+)?"
    r"(?:-(?:(?!686\b)\d+(?:\.[0-9a-z]+)*|rc\d+|trunk))?"
    r"-(?P<flavour>[0-9A-Za-z].*)"
)
"""Debian's: 6.1.0-56-cloud-amd64, 6.12.57+deb13-amd64, 6.1.0-0.deb11.13-686-pae, 6.10.3-arm64-16k."""
BANNER = re.compile(r"(\S+) \([^)]*\) (#.+)")
NAMES = (
    "linux-image-{}",
    "linux-image-{}-unsigned",
    "linux-image-unsigned-{}",
    "proxmox-kernel-{}-signed",
    "proxmox-kernel-{}",
    "pve-kernel-{}",
)
"""What the package of a kernel release may be called."""
IMAGES = ("vmlinuz-", "vmlinux-")
IN_PLACE = frozenset({"installed", "triggers-awaited", "triggers-pending"})

MAGIC, VERSION, SECTIONS = 0x202, 0x20E, 0x1F1
"""Offsets of `HdrS`, of the 16-bit pointer to the version text (less 0x200), and of the number of setup sectors."""
SECTOR = 0x200
HEADER = 0x210
LONGEST_BANNER = 512
MOST_BYTES = 64 << 10
MOST_PACKAGES = 1000


@dataclass(frozen=True, slots=True)
class Running:
    """What `uname -r` and `uname -v` say; the kernel cuts the second off after 64 characters."""

    release: str
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel in /boot that dpkg has installed. text: as of `Running`, from the image; empty where it has none."""

    release: str
    package: str
    version: str
    text: str


def flavour_of(release: str) -> str:
    """Return `cloud-amd64` of 6.1.0-56-cloud-amd64; empty where a release names none. Pure."""
    found = RELEASE.fullmatch(release)
    return found["flavour"] if found else ""


def read_running(host: Host) -> Running:
    """Return the kernel that runs. Raises AgentError(UNREADABLE)."""
    texts = [read_beginning(f"{host.proc}/sys/kernel/{name}") for name in ("osrelease", "version")]
    if not texts[0] or not texts[1]:
        raise AgentError(Kind.UNREADABLE, f"{host.proc}/sys/kernel does not say which kernel runs")
    release, text = (os.fsdecode(item).strip() for item in texts if item)
    return Running(release, text)


def read_images(host: Host, snapshot: Snapshot) -> tuple[Image, ...]:
    """Return the kernels that lie in /boot and belong to a package that dpkg has installed completely, by name."""
    packages = {state.name: state for state in snapshot.values() if state.state in IN_PLACE}
    try:
        names = sorted(os.listdir(host.under("/boot")))
    except OSError:
        return ()
    return tuple(_images(host, names, packages))


def _images(host: Host, names: list[str], packages: dict[str, PackageState]) -> Iterator[Image]:
    for name in names:
        release = next((name.removeprefix(start) for start in IMAGES if name.startswith(start)), "")
        owners = (packages.get(form.format(release)) for form in NAMES)
        owner = next((state for state in owners if state), None)
        if release and owner:
            yield Image(release, owner.name, owner.version, _read_text(host.under(f"/boot/{name}"), release))


def _read_text(path: str, release: str) -> str:
    """Return the version text in the boot header of an image, if it is one of `release`."""
    head = read_beginning(path, HEADER)
    if not head or len(head) < HEADER or head[MAGIC : MAGIC + 4] != b"HdrS":
        return ""
    (pointer,) = struct.unpack_from("<H", head, VERSION)
    if not 0 < pointer < head[SECTIONS] * SECTOR:
        return ""
    banner = read_beginning(path, LONGEST_BANNER, pointer + SECTOR) or b""
    found = BANNER.fullmatch(os.fsdecode(banner.partition(b"\0")[0]))
    return found[2].strip() if found and found[1] == release else ""


def read_foreign(host: Host) -> str:
    """Return why the kernel that runs is not this root's own, in words; empty where it is."""
    if not _is_booted(host):
        return "this is not the root that was booted"
    container = read_beginning(host.under("/run/systemd/container"))
    if container is not None:
        return f"this is a container ({os.fsdecode(container).strip() or 'of unknown kind'})"
    if not os.path.isdir(host.under("/run/systemd/system")):
        for kind, mark in (("docker", "/.dockerenv"), ("podman", "/run/.containerenv")):
            if os.path.lexists(host.under(mark)):
                return f"this is a container ({kind})"
    return ""


def _is_booted(host: Host) -> bool:
    """PID 1 has the root that was booted; where we may not look at it, our own root is taken for that."""
    try:
        return os.path.samefile(f"{host.proc}/1/root", host.root)
    except OSError:
        return host.root == "/"


def read_wanting(host: Host) -> tuple[str, ...] | None:
    """Return which packages asked for a reboot, as /run/reboot-required.pkgs has them; None where nobody did.

    Anybody's postinst writes there: foreign text, one name a line, repeated at will.
    """
    if not os.path.lexists(host.under("/run/reboot-required")):
        return None
    listed = read_beginning(host.under("/run/reboot-required.pkgs")) or b""
    names = dict.fromkeys(line.strip() for line in os.fsdecode(listed).split("\n"))
    return tuple(name for name in names if name)[:MOST_PACKAGES]


def read_beginning(path: str, most: int = MOST_BYTES, start: int = 0) -> bytes | None:
    """Return up to `most` bytes of a regular file, from `start`; None where there is none that may be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.pread(descriptor, most, start)
    except OSError:
        return None
    finally:
        os.close(descriptor)
