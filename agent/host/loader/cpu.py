"""What the processor can do, as /proc/cpuinfo says: MKL and ld.so both choose files by it. Judges nothing."""

import os
from dataclasses import dataclass

from agent.host.kernel import read_beginning
from agent.model.facts import Host

LEVELS = {
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
    "x86-64-v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
    "x86-64-v2": "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3",
}
"""The flags that each level of the x86-64 psABI adds, as Linux names them; best first, as ld.so looks."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """The first processor. vendor: `GenuineIntel`, `AuthenticAMD`, …; empty where the kernel does not say."""

    vendor: str = ""
    flags: frozenset[str] = frozenset()


def read_cpu(host: Host) -> Cpu:
    """Return the vendor and flags of the first processor; what cannot be read is empty."""
    text = os.fsdecode(read_beginning(f"{host.proc}/cpuinfo") or b"").partition("\n\n")[0]
    rows = (line.partition(":") for line in text.splitlines())
    values = {name.strip(): value.strip() for name, _, value in rows}
    return Cpu(values.get("vendor_id", ""), frozenset(values.get("flags", "").split()))


def levels(cpu: Cpu) -> tuple[str, ...]:
    """Return the names of the glibc-hwcaps directories that ld.so looks into on `cpu`, best first. Pure."""
    added = [(name, set(flags.split())) for name, flags in LEVELS.items()]
    needed = {name: set().union(*(more for _, more in added[at:])) for at, (name, _) in enumerate(added)}
    return tuple(name for name, flags in needed.items() if flags <= cpu.flags)
