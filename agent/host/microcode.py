"""Which microcode the processor runs, and the newest one for it below /lib/firmware. Judges nothing.

The files are read as bytes, to a bound, and no size in one is trusted. Layouts: Intel's Software Developer's Manual,
volume 3, "Microcode Update Facilities"; AMD's as of arch/x86/kernel/cpu/microcode/amd.c of Linux.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.host.kernel import read_beginning
from agent.model.facts import Host

PACKAGES = {"GenuineIntel": "intel-microcode", "AuthenticAMD": "amd64-microcode"}
"""cpuinfo's vendor → Debian's package of its microcode."""
FIRMWARE = "/lib/firmware"
FLAGS = "/sys/devices/system/cpu/cpu0/microcode/processor_flags"
LARGEST_FILE = 4 << 20

INTEL_HEADER = struct.Struct("<IIIIIIIII12x")
INTEL_TABLE = struct.Struct("<I16x")
INTEL_SIGNATURE = struct.Struct("<III")
INTEL_DATA = 2000
"""Bytes of data where a header has 0."""

AMD_MAGIC = b"DMA\0"
AMD_SECTION = struct.Struct("<II")
AMD_EQUIVALENCE = struct.Struct("<I8xH2x")
AMD_PATCH = struct.Struct("<4xI16xH")
AMD_TABLE, AMD_UPDATE = 0, 1


@dataclass(frozen=True, slots=True)
class Processor:
    """The first processor of /proc/cpuinfo; `virtual`: below a hypervisor, whose business the microcode is."""

    vendor: str
    family: int
    model: int
    stepping: int
    revision: int
    virtual: bool

    @property
    def signature(self) -> int:
        """Return what CPUID(1).EAX says of these."""
        base = min(self.family, 15)
        extended = (self.family - base) << 20 | (self.model >> 4) << 16
        return extended | base << 8 | (self.model & 15) << 4 | self.stepping


def read_processor(host: Host) -> Processor | None:
    """Return the processor; None where /proc/cpuinfo does not tell (no x86, no microcode driver)."""
    text = os.fsdecode(_read_proc(f"{host.proc}/cpuinfo")).partition("\n\n")[0]
    rows = (line.partition(":") for line in text.split("\n"))
    found = {name.strip(): value.strip() for name, _, value in rows}
    try:
        return Processor(
            vendor=found["vendor_id"],
            family=int(found["cpu family"]),
            model=int(found["model"]),
            stepping=int(found["stepping"]),
            revision=int(found["microcode"], 16),
            virtual="hypervisor" in found["flags"].split(),
        )
    except (KeyError, ValueError):
        return None


def _read_proc(path: str) -> bytes:
    """A processor's flags are two KiB or so, and the first read of procfs has the first processor whole."""
    return read_beginning(path) or b""


def read_newest(host: Host, processor: Processor) -> int | None:
    """Return the newest revision that the firmware files have for `processor`; None where that is not clear."""
    if processor.vendor == "GenuineIntel":
        stem = f"{FIRMWARE}/intel-ucode/{processor.family:02x}-{processor.model:02x}-{processor.stepping:02x}"
        parts = [_read(host, name) for name in (stem, f"{stem}.initramfs")]
        return newest_intel(b"".join(parts), processor.signature, _read_flags(host))
    name = f"_fam{processor.family:02x}h" if processor.family > 20 else ""
    return newest_amd(_read(host, f"{FIRMWARE}/amd-ucode/microcode_amd{name}.bin"), processor.signature)


def read_times(host: Host, package: str) -> tuple[float, float] | None:
    """Return when dpkg last unpacked `package` and when this machine was booted, since 1970; None: not known."""
    rows = (line.split() for line in _read_proc(f"{host.proc}/stat").split(b"\n"))
    booted = next((float(row[1]) for row in rows if row[:1] == [b"btime"] and row[1:2] and row[1].isdigit()), None)
    try:
        unpacked = os.stat(host.under(f"/var/lib/dpkg/info/{package}.list")).st_mtime
    except OSError:
        return None
    return None if booted is None else (unpacked, booted)


def _read(host: Host, path: str) -> bytes:
    return read_beginning(host.under(path), LARGEST_FILE) or b""


def _read_flags(host: Host) -> int | None:
    """Return the platform of the processor as the bit that Intel's headers have for it."""
    try:
        return int(read_beginning(host.under(FLAGS)) or b"", 16)
    except ValueError:
        return None


def newest_intel(data: bytes, signature: int, flags: int | None) -> int | None:
    """Return the newest revision for a processor in one of Intel's files; pure.

    flags: the processor's platform bit. Where it is not known (None), updates for different platforms that have
    different revisions are not clear.
    """
    found = [(revision, mask) for revision, sign, mask in _intel_updates(data) if sign == signature]
    if flags is None:
        newest = {mask: max(revision for revision, other in found if other == mask) for _, mask in found}
        return next(iter(newest.values())) if len(set(newest.values())) == 1 else None
    return max((revision for revision, mask in found if mask & flags or mask == flags), default=None)


def _intel_updates(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield revision, signature and platform mask of each update, those of its extended table too."""
    at = 0
    while at + INTEL_HEADER.size <= len(data):
        version, revision, _, signature, _, _, mask, size, total = INTEL_HEADER.unpack_from(data, at)
        size = size or INTEL_DATA
        total = total or INTEL_DATA + INTEL_HEADER.size
        if version != 1 or total < INTEL_HEADER.size + size or at + total > len(data):
            return
        yield revision, signature, mask
        table = data[at + INTEL_HEADER.size + size : at + total]
        if len(table) >= INTEL_TABLE.size:
            count = min(INTEL_TABLE.unpack_from(table)[0], (len(table) - INTEL_TABLE.size) // INTEL_SIGNATURE.size)
            end = INTEL_TABLE.size + count * INTEL_SIGNATURE.size
            for other, other_mask, _ in INTEL_SIGNATURE.iter_unpack(table[INTEL_TABLE.size : end]):
                yield revision, other, other_mask
        at += total


def newest_amd(data: bytes, signature: int) -> int | None:
    """Return the newest revision for a processor in one of AMD's files, which may hold several containers; pure."""
    found: list[int] = []
    wanted: set[int] = set()
    at = 0
    while at + AMD_SECTION.size <= len(data):
        if data[at : at + 4] == AMD_MAGIC:
            wanted = set()
            at += len(AMD_MAGIC)
            continue
        kind, size = AMD_SECTION.unpack_from(data, at)
        section = data[at + AMD_SECTION.size : at + AMD_SECTION.size + size]
        if len(section) < size or kind not in (AMD_TABLE, AMD_UPDATE):
            break
        if kind == AMD_TABLE:
            wanted = _equivalents(section, signature)
        elif size >= AMD_PATCH.size:
            revision, processor = AMD_PATCH.unpack_from(section)
            found += [revision] if processor in wanted else []
        at += AMD_SECTION.size + size
    return max(found, default=None)


def _equivalents(table: bytes, signature: int) -> set[int]:
    whole = table[: len(table) // AMD_EQUIVALENCE.size * AMD_EQUIVALENCE.size]
    return {equal for installed, equal in AMD_EQUIVALENCE.iter_unpack(whole) if installed == signature}
