"""`make bench`: how fast and how precise aftercare is, beside the others, in one run on one booted Debian.

Three herds, each an addition to the one before. In each all tools take turns, round by round; a ratio is made within a
round and told as the median and (the least to the greatest). Prints markdown on stdout. Changes nothing outside of the
cache: tools, herd and upgrade live in a machine that is thrown away.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import disk, herd
from tests.e2e import builder, host, roots
from tests.e2e.machine import Machine

SUITE = "bookworm"
ADDED = (1000, 2000, 7000)
ROUNDS = 5
PLACE = "/root/bench"
HISTORY = f"{PLACE}/history"
MINE = ("scan query", "scan text", "agentctl")

Samples = dict[str, list[list[float]]]

RATIOS = (
    ("our scan, PROCMAP_QUERY : C reads the text", "scan query", 1, "C text", 0.5),
    ("our scan, PROCMAP_QUERY : C asks PROCMAP_QUERY", "scan query", 1, "C query", 2),
    ("our scan, text : C reads the text", "scan text", 1, "C text", 1.5),
    ("our scan, PROCMAP_QUERY : `needrestart -b`", "scan query", 1, "needrestart", 1 / 8),
    ("our scan, text : `needrestart -b`", "scan text", 1, "needrestart", None),
    ("whole worker, PROCMAP_QUERY : `needrestart -b`", "scan query", 0, "needrestart", None),
    ("`agentctl check libraries --json` : `needrestart -b`", "agentctl", 0, "needrestart", 1 / 3),
    ("our scan, PROCMAP_QUERY : `checkrestart`", "scan query", 1, "checkrestart", None),
    ("`agentctl check libraries --json` : `checkrestart`", "agentctl", 0, "checkrestart", None),
)
"""Words, what of ours (1: the scan alone, 0: the process from start to end), against what, and the bound if any."""
GROWTH = (
    ("our scan, PROCMAP_QUERY", "scan query", 1),
    ("our scan, text", "scan text", 1),
    ("`agentctl check libraries --json`", "agentctl", 0),
)


def main() -> int:
    """Measure, print and return the exit status: 0 also where a bound does not hold, for it is told."""
    try:
        base = roots.base(SUITE)
        tree, deb = disk.tree(base), builder.package(SUITE)
        with tempfile.TemporaryDirectory() as directory, Machine(base, tree) as machine:
            furnish(machine, deb, Path(directory))
            measure(machine, Path(directory))
    except host.Missing as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


def furnish(machine: Machine, deb: Path, directory: Path) -> None:
    """Install what is measured. The daemon stays masked: it would act upon the upgrade."""
    herd.build(directory)
    machine.run("systemctl mask aftercare.service")
    machine.copy_in(deb, "/root/aftercare.deb")
    machine.run("dpkg -i /root/aftercare.deb")
    herd.settle(machine, directory)
    for path in (herd.HERE / "meter.py", herd.HERE / "scan.py", directory / "reader"):
        machine.copy_in(path, f"{PLACE}/{path.name}")
    meter(machine, "remember", HISTORY)


def meter(machine: Machine, *words: str) -> Any:
    """Return what meter.py says inside the machine."""
    return machine.run(["/usr/bin/python3", "-B", f"{PLACE}/meter.py", *words], timeout=600).json()


def measure(machine: Machine, directory: Path) -> None:
    """Grow the herd step by step, measure at each, then replace a library and the program for real; print it all."""
    samples: dict[int, Samples] = {}
    size, slow = 0, 0.0
    loads = [_load()]
    for added in ADDED:
        host.progress(f"making {added} processes more")
        herd.grow(machine, len(samples), added)
        size += added
        host.progress(f"measuring with {size} processes: {ROUNDS} rounds")
        samples[size] = meter(machine, "measure", HISTORY, str(ROUNDS))
        slow = slow or meter(machine, "psutil")
        loads.append(_load())
    host.progress("precision: before and after a library was replaced, and after the program was")
    intact = meter(machine, "name", HISTORY)
    pair = machine.base.pair(machine.base.crypto)
    machine.run(["dpkg", "-i", pair.deb])
    replaced = meter(machine, "name", HISTORY)
    herd.install(machine, directory, "renewed", 2)
    renewed = meter(machine, "name", HISTORY)
    kernel, cores = os.uname().release, os.cpu_count()
    print(f"Debian {SUITE}, booted; Linux {kernel}, {cores} cores; {ROUNDS} rounds; load average before: {loads[0]}; ")
    print(f"after the rounds of each herd: {', '.join(map(str, loads[1:]))}.\n")
    precise = precision(intact, replaced, renewed)
    sections = (speed(samples), seconds(samples, slow), memory(samples, renewed), precise)
    print("\n\n".join("\n".join(section) for section in sections))
    print(f"\nReplaced: {pair.package} {pair.old} → {pair.new}, then herd 1 → 2. With exactly these files were told:")
    for tool in MINE:
        print(f"- {tool}: {replaced[tool]['files']}, then {renewed[tool]['files']}")


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def speed(samples: dict[int, Samples]) -> Iterator[str]:
    """Yield the table of ratios."""
    yield from _head("ratio (median; least–greatest)", [f"{size:,}" for size in samples], "wanted")
    for words, ours, column, theirs, bound in RATIOS:
        cells = [_spread([a[column] / b[0] for a, b in zip(s[ours], s[theirs])]) for s in samples.values()]
        yield _row(words, *cells, f"≤ {bound:.3g} at 1,000" if bound else "–")
    least = min(samples)
    for words, ours, column in GROWTH:
        first = median(row[column] for row in samples[least][ours]) / least
        cells = [_spread([row[column] / size / first for row in some[ours]]) for size, some in samples.items()]
        yield _row(f"{words}, time per process : that at {least:,}", *cells, "≤ 1.2")


def seconds(samples: dict[int, Samples], slow: float) -> Iterator[str]:
    """Yield the table of times, to see what the ratios are made of."""
    yield from _head("milliseconds (median; least–greatest)", [f"{size:,}" for size in samples])
    for tool in samples[min(samples)]:
        cells = [_spread([row[0] * 1000 for row in some[tool]]) for some in samples.values()]
        yield _row(f"{tool}, whole process", *cells)
        if tool.startswith("scan"):
            cells = [_spread([row[1] * 1000 for row in some[tool]]) for some in samples.values()]
            yield _row(f"{tool}, the scan alone", *cells)
    yield _row("psutil memory_maps, once", f"{slow * 1000:.0f}", *["–"] * (len(samples) - 1))


def memory(samples: dict[int, Samples], renewed: dict[str, Any]) -> Iterator[str]:
    """Yield the table of peak memory."""
    sizes = [f"{size:,}" for size in samples]
    yield from _head("peak memory, MiB", [*sizes, f"{sizes[-1]}, library and program replaced"], "wanted")
    for tool in (*MINE, "needrestart"):
        cells = [f"{max(row[2] for row in some[tool]) / 1024:.1f}" for some in samples.values()]
        yield _row(tool, *cells, f"{renewed[tool]['peak'] / 1024:.1f}", "–" if tool == "needrestart" else "≤ 64")


def precision(intact: dict[str, Any], replaced: dict[str, Any], renewed: dict[str, Any]) -> Iterator[str]:
    """Yield the table of what was flagged. Only what maps the replaced files and is no guest is truly stale."""
    truth = intact["truth"]
    tools = [tool for tool in intact if tool != "truth"]
    yield from _head("processes taken to be stale", ["there are", *tools])
    for words, kinds in _groups(truth):
        yield _row(f"intact: {words}", _sum(truth, kinds), *(_sum(intact[tool]["kinds"], kinds) for tool in tools))
    maps = {kind for kind in truth if kind.endswith("+ssl") and not kind.startswith("guest")}
    runs = {kind for kind in truth if not kind.startswith(("guest", "local"))}
    for what, found, stale in (("library", replaced, maps), ("and the program", renewed, maps | runs)):
        for words, kinds in (("rightly", stale), ("wrongly", set(truth) - stale)):
            cells = [_sum(found[tool]["kinds"], kinds) for tool in tools]
            yield _row(f"{what} replaced: {words}", _sum(truth, kinds), *cells)
        yield _row("… and the seconds that it took", "", *(f"{found[tool]['seconds']:.2f}" for tool in tools))


def _groups(truth: dict[str, int]) -> Iterator[tuple[str, set[str]]]:
    roles: dict[str, set[str]] = {}
    for kind in truth:
        roles.setdefault(kind.partition("+")[0], set()).add(kind)
    words = {
        "private": "own mount namespace",
        "guest": "own mount and pid namespace, own root",
        "large": "5,000 mappings more",
        "memfd": "code in a memfd",
        "jit": "code made at run time",
        "named": "files named `libc.so.6 (deleted)`",
        "tmp": "deleted file in /tmp",
        "home": "deleted file in /home",
        "var": "deleted file in /var",
        "local": "program without a package",
        "plain": "nothing special",
    }
    yield from ((words[role], roles[role]) for role in words if role in roles)
    yield "all", set(truth)


def _sum(counted: dict[str, int], kinds: set[str]) -> int:
    return sum(counted.get(kind, 0) for kind in kinds)


def _spread(values: list[float]) -> str:
    return f"{_short(median(values))} ({_short(min(values))}–{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _head(words: str, columns: list[str], *last: str) -> Iterator[str]:
    yield _row(words, *columns, *last)
    yield "|---" * (1 + len(columns) + len(last)) + "|"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
