"""How fast the check `numpy` finds 200 Python environments, beside a plain walk that reads every shared object there.

    python3 -m tests.bench.numpy

All three take turns, round by round, each in a process of its own; a ratio is made within a round and told as the
median and (the least to the greatest). The environments are real wheels, hard-linked, each in a project with files of
its own, in memory: so all is warm, for all alike.
Prints markdown on stdout; leaves nothing but the wheels in the cache.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.e2e.host import Missing, cache, locked, progress

COUNT = 200
FILES = 200
"""Of other things beside each environment, so many as a server was found to have: 44,000 for 211 environments."""
ROUNDS = 7
SOURCE = Path(__file__).parents[2]
WHEELS = (
    ("numpy==2.3.5", "8cba086a43d54ca804ce711b2a940b16e452807acebe7852ff327f1ecd49b0d4"),
    ("scipy==1.16.3", "0151a0749efeaaab78711c78422d413c583b8cdd2011a3c1d6c794938ee9fdb2"),
)
FOR = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311")
FOR += tuple(word for tag in ("2014", "_2_27", "_2_28") for word in ("--platform", f"manylinux{tag}_x86_64"))
MOST_MEMORY = 80
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
SYSTEM = ("libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-*")
"""What the wheels need of the system."""

NAIVE = """
count = 0
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        if name.endswith(".so") or ".so." in name:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                read_dynamic(descriptor)
                count += 1
            except AgentError:
                pass
            os.close(descriptor)
"""
"""What anybody would write, with the fastest reader that there is: our own."""
CHECK = """
result = run(Host(sys.argv[1]), Request("numpy", datetime.now(UTC), kept=json.loads(given)))
count = sum(result.detail["verdicts"].values())
kept = json.dumps(result.keep)
"""
"""All of a run: discovery where nothing is known, the verdicts, and what is kept for the next one."""
FRAME = """
import json, os, resource, sys, time
from datetime import UTC, datetime
from agent.checks.numpy import run
from agent.host.loader.dynamic import read_dynamic
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.model.findings import Request
given = sys.stdin.read()
kept = ""
begun = time.perf_counter()
{}
seconds = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"seconds": seconds, "peak": peak / 1024, "count": count, "kept": kept}}))
"""


def main() -> int:
    """Measure, print, and return the exit status: 1 where a bound does not hold."""
    try:
        wheels = fetch()
    except Missing as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="aftercare-bench-") as place:
        root = Path(place) / "root"
        populate(root, wheels)
        rounds = [measure(root) for _ in range(ROUNDS)]
        subprocess.run(["rm", "-rf", root], check=True)
    return report(rounds)


def fetch() -> list[Path]:
    """Return the wheels, from the cache or from whatever package index pip is configured with."""
    home = cache() / "downloads" / "numpy"
    with locked(cache() / "numpy.lock"):
        for requirement, digest in WHEELS:
            if not list(home.glob(f"{requirement.partition('=')[0]}-*.whl")):
                _download(requirement, digest, home)
    return sorted(home.glob("*.whl"))


def _download(requirement: str, digest: str, home: Path) -> None:
    progress(f"fetching {requirement} (once; kept in {home})")
    home.mkdir(parents=True, exist_ok=True)
    wanted = home / "wanted.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{digest}\n")
    argv = ["-m", "pip", "--quiet", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes", *FOR]
    done = subprocess.run(
        [sys.executable, *argv, "--dest", str(home), "--requirement", str(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    wanted.unlink()
    if done.returncode:
        raise Missing(f"pip cannot fetch {requirement}: {done.stderr[-600:]}")


def populate(root: Path, wheels: list[Path]) -> None:
    """Make the projects with their environments: one from the wheels, the others as hard links to it."""
    progress(f"making {COUNT} environments")
    first = root / "srv/0"
    site = first / ".venv/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (first / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    for number in range(FILES):
        source = first / f"src/{number % 5}/{number % 20}/{number}.py"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.touch()
    for number in range(1, COUNT):
        subprocess.run(["cp", "-al", first, root / f"srv/{number}"], check=True)
    for path in (Path("/etc/ld.so.cache"), *(match for name in SYSTEM for match in LIBRARIES.glob(name))):
        place = root / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    (root / "lib").symlink_to("usr/lib")


def measure(root: Path) -> dict[str, dict[str, Any]]:
    """Return one round."""
    naive = run(NAIVE, root, "")
    discovery = run(CHECK, root, "{}")
    return {"naive": naive, "discovery": discovery, "again": run(CHECK, root, discovery["kept"])}


def run(code: str, root: Path, given: str) -> dict[str, Any]:
    """Return the seconds and the peak memory (MiB) of `code`, the start of the interpreter left out."""
    argv = [sys.executable, "-B", "-c", FRAME.format(code), str(root)]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, cwd=SOURCE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def report(rounds: list[dict[str, dict[str, Any]]]) -> int:
    """Print the ratios and what they are made of; return 1 where a bound does not hold."""
    for item in rounds:
        assert item["discovery"]["count"] == item["again"]["count"] == COUNT, item
    found = [item["discovery"]["seconds"] / item["naive"]["seconds"] for item in rounds]
    again = [item["again"]["seconds"] / item["discovery"]["seconds"] for item in rounds]
    peak = max(item[name]["peak"] for item in rounds for name in ("discovery", "again"))
    objects = rounds[0]["naive"]["count"]
    print(f"{COUNT} environments with numpy and scipy, {objects:,} shared objects; Linux {os.uname().release}, ")
    print(f"{os.cpu_count()} cores; {ROUNDS} rounds; load average {os.getloadavg()[0]:.2f}.\n")
    print("| | median (least to greatest) | wanted |\n|---|---|---|")
    print(f"| discovery with verdicts : walk of all shared objects | {_spread(found)} | ≤ 0.2 |")
    print(f"| known environments again : discovery | {_spread(again)} | ≤ 0.1 |")
    print(f"| peak memory | {peak:.0f} MiB | ≤ {MOST_MEMORY} MiB |")
    for name in ("naive", "discovery", "again"):
        print(f"| {name}, milliseconds | {_spread([item[name]['seconds'] * 1000 for item in rounds], '.0f')} | – |")
    return int(median(found) > 0.2 or median(again) > 0.1 or peak > MOST_MEMORY)


def _spread(values: list[float], form: str = ".3f") -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    sys.exit(main())
