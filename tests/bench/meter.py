"""Runs the tools in the machine that is measured on, and says how long they took and whom they named.

    meter.py remember PATH          write our history as of now: dpkg's files by inode
    meter.py measure PATH ROUNDS    JSON: tool → [[seconds, seconds within, peak KiB]…], taking turns, in rounds
    meter.py name PATH              JSON: tool → what it found, and the truth, by the names of the herd's processes
    meter.py psutil                 JSON: seconds that memory_maps of all processes takes

PATH holds the history. Nothing of the tools' output is read while they are timed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = ["/usr/share/aftercare"]

from agent import RUNNING  # noqa: E402
from agent.config.settings import Settings  # noqa: E402
from agent.host.packages import read_index  # noqa: E402
from agent.host.transactions import read_snapshot  # noqa: E402
from agent.model import contract  # noqa: E402
from agent.model.facts import FileId, Host, Retired  # noqa: E402
from agent.model.findings import Request  # noqa: E402

HERE = Path(__file__).parent
PYTHON = ["/usr/bin/python3", "-IS"]
SCAN = {verb: [*PYTHON, str(HERE / "scan.py"), verb] for verb in ("query", "text", "agentctl")}
TOOLS = {
    "C text": [str(HERE / "reader"), "text"],
    "C query": [str(HERE / "reader"), "query"],
    "scan query": SCAN["query"],
    "scan text": SCAN["text"],
    "agentctl": ["/usr/bin/agentctl", "check", "libraries", "--json"],
    "needrestart": ["/usr/sbin/needrestart", "-b"],
    "checkrestart": ["/usr/sbin/checkrestart"],
}
WHOM = {"needrestart": r"#(\d+) is (?:a child of|not a child)", "checkrestart": r"Process .* \(PID: (\d+)\)"}
"""How the tools say with -v which processes they took to be stale."""
FEW = 10


def main(verb: str, *words: str) -> None:
    """Do what `verb` says; the answer goes to stdout."""
    verbs: dict[str, Callable[..., Any]] = {"remember": remember, "measure": measure, "name": name, "psutil": maps}
    print(json.dumps(verbs[verb](*words)))


def remember(path: str) -> int:
    """Write down the inodes of dpkg's files; return how many there are."""
    host = Host()
    rows = [contract.index_row(item) for item in read_index(host, read_snapshot(host).values())]
    Path(path).write_text(json.dumps(rows))
    return len(rows)


def retired(path: str) -> tuple[Retired, ...]:
    """Return the files of the history that dpkg has replaced since; if there are none, a few that nobody maps."""
    host = Host()
    before = tuple(contract.indexed(json.loads(Path(path).read_text())))
    kept = {item.id for item in read_index(host, read_snapshot(host).values())}
    gone = [Retired(item.path, item.package, item.version, item.id, 1) for item in before if item.id not in kept]
    if gone:
        return tuple(gone)
    return tuple(
        Retired(item.path, item.package, item.version, FileId(item.id.device, item.id.inode + (1 << 31), 0), 1)
        for item in before[:FEW]
    )


def order(path: str) -> bytes:
    """Return what the daemon tells a worker, with that history."""
    request = Request("libraries", datetime.now(UTC), Settings().rules, retired(path))
    return json.dumps(
        {
            "op": "check",
            "version": RUNNING,
            "memory": Settings().check_memory,
            "host": contract.encode(Host()),
            "request": contract.encode(request),
        }
    ).encode()


def measure(path: str, rounds: str) -> dict[str, list[list[float]]]:
    """Return the times, round by round."""
    samples: dict[str, list[list[float]]] = {tool: [] for tool in TOOLS}
    asked = order(path)
    for _ in range(int(rounds)):
        for tool, argv in TOOLS.items():
            samples[tool].append(list(run(argv, asked)[:3]))
    return samples


def run(argv: list[str], asked: bytes = b"") -> tuple[float, float, int, bytes, bytes]:
    """Return seconds, the seconds that it says itself, its peak memory in KiB, and what it printed."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(asked)
        stdin.seek(0)
        begun = time.perf_counter()
        process = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        printed, told = out.read(), err.read()
    if process.returncode not in (0, 1):
        raise SystemExit(f"{argv} ended with {process.returncode}: {told.decode(errors='replace')}")
    within = json.loads(told)["seconds"] if argv in SCAN.values() else seconds
    return seconds, within, usage.ru_maxrss, printed, told


def name(path: str) -> dict[str, Any]:
    """Return for each tool which kinds of the herd's processes it named, how often, and how long that took."""
    kinds = herd()
    found: dict[str, Any] = {"truth": count(kinds, kinds)}
    asked = order(path)
    for verb, argv in SCAN.items():
        done = run(argv, asked)
        named = {int(pid): files for pid, files in json.loads(done[4])["stale"].items()}
        found[verb if verb == "agentctl" else f"scan {verb}"] = verdict(kinds, named, done)
    for tool, pattern in WHOM.items():
        done = run([*TOOLS[tool], "-v"])
        text = (done[3] + done[4]).decode(errors="replace")
        found[tool] = verdict(kinds, {int(pid): [] for pid in re.findall(pattern, text)}, done)
    return found


def herd() -> dict[int, str]:
    """Return pid → name of the herd's processes: all in its unit, but for the one that made them."""
    kinds = {}
    for row in Path("/sys/fs/cgroup/system.slice").glob("herd-*.service/cgroup.procs"):
        for pid in map(int, row.read_text().split()):
            kinds[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
    return {pid: kind for pid, kind in kinds.items() if kind != "herd"}


def verdict(kinds: dict[int, str], named: dict[int, list[str]], done: tuple[Any, ...]) -> dict[str, Any]:
    """Return what one tool said, in numbers. files: how many processes there were with just those files."""
    lists = [" ".join(named[pid]) for pid in kinds if pid in named]
    files = {some: lists.count(some) for some in set(lists)}
    return {"kinds": count(kinds, named), "files": files, "seconds": done[0], "peak": done[2]}


def count(kinds: dict[int, str], pids: dict[int, Any]) -> dict[str, int]:
    """Return name → how many of `pids` of the herd are called that."""
    counted: dict[str, int] = {}
    for pid, kind in kinds.items():
        if pid in pids:
            counted[kind] = counted.get(kind, 0) + 1
    return counted


def maps() -> float:
    """Return the seconds that it takes psutil to list the mappings of all processes."""
    import psutil

    begun = time.perf_counter()
    for process in psutil.process_iter():
        try:
            process.memory_maps()
        except psutil.Error:
            continue
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(*sys.argv[1:])
