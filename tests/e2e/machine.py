"""A booted Debian, thrown away afterwards.

    with Machine(roots.base("bookworm")) as machine:            # or Machine(base, tree=another_root)
        machine.run("apt-get -y install /mirror/...")            # a str is a shell script, a list is an argv
        with machine.ssh("alice") as session:                    # a real login over sshd, kept open
            session.run("id")
        machine.unit("nginx.service")["MainPID"], machine.replaced(), machine.journal(unit="nginx.service")
        machine.agentctl("status").data["findings"]

A machine is a real copy of a root on the same file system (0.2 s; a copy and no overlay, because the product
tells files apart by device, inode and birth time, and those should be what a server has), booted by
systemd-nspawn with systemd as PID 1 in a network namespace that holds nothing but `lo`: several may run side
by side, and none reaches the outside. `/mirror` inside is the partial archive of `roots.py`, so apt works.

Commands run in the cgroup of `harness.service`, which systemd refuses to stop: they belong to a unit like
everything on a server does, and no restart can take them away.

`close` (or the end of the `with`) kills the machine and removes all that it had; a machine whose test run was
killed is removed by the next one to start. Nothing is ever mounted in the host's own mount namespace.
"""

import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.booted import Booted, Done
from tests.e2e.session import Session

AGENT = Path(__file__).parents[2] / "agent"
UNIT_STARTED = "39f53479d3a045ac8e11786248231fbf"
"""The MESSAGE_ID of systemd's "Started …"."""
JOURNAL_STARTED = "f77379a8490b408bbe5f6940505a777b"
"""The one of journald's own "Journal started": systemd cannot tell the journal that the journal is there."""

REPLACED = r"""
import os, re
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        rows = open(f"/proc/{pid}/maps", errors="surrogateescape").read().splitlines()
    except OSError:
        continue
    for row in rows:
        area, perms, offset, device, inode, *rest = row.split(None, 5)
        if "x" not in perms or inode == "0" or not rest:
            continue
        path = rest[0]
        plain = path.removesuffix(" (deleted)")
        try:
            same = path == plain and os.stat(plain).st_ino == int(inode)
        except OSError:
            same = False
        if not same:
            print(pid, ascii(plain))
"""
"""Which processes execute from files that are no longer at their path, told by path and inode alone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What agentctl said: exit status, the JSON from stdout (None where there was none), and stderr."""

    status: int
    data: Any
    stderr: str

    @property
    def findings(self) -> dict[str, Any]:
        """The findings by subject."""
        return {finding["subject"]: finding for finding in self.data["findings"]}


class Machine(Booted):
    """A booted Debian, with what the scenarios do to it and want to know of it."""

    def ssh(self, user: str = "root") -> Session:
        """Log in over the machine's sshd and keep the session open."""
        return Session(self, user)

    # Files

    def path(self, inside: str) -> Path:
        """Return where the host sees a file of the machine's disk (not of its /run, /tmp or /proc)."""
        return self.root / inside.lstrip("/")

    def copy_in(self, source: Path, inside: str) -> None:
        """Copy a file of the host into the machine, owned by root."""
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.path(inside))
        shutil.copymode(source, self.path(inside))

    def copy_agent(self) -> None:
        """Copy the product's code of this tree to /opt/tree, where it is not installed."""
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(AGENT, self.path("/opt/tree/agent"), ignore=ignore)

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file on any of the machine's file systems, owned by root."""
        script = 'mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"'
        self.run(["sh", "-c", script, "write", inside, f"{mode:o}"], stdin=text)

    def exists(self, inside: str) -> bool:
        """Tell whether there is a file on any of the machine's file systems."""
        return self.run(["test", "-e", inside], check=False).status == 0

    def read(self, inside: str) -> str:
        """Read a file on any of the machine's file systems."""
        return self.run(["cat", inside]).stdout

    # What systemd and the kernel say

    def unit(self, name: str) -> dict[str, str]:
        """Return the properties of a unit."""
        return dict(row.split("=", 1) for row in self.show(name).splitlines() if "=" in row)

    def show(self, *words: str) -> str:
        """Return what `systemctl show` prints, also while PID 1 is re-executed and answers nobody."""
        argv = ["systemctl", "show", *words]
        return str(self.until(lambda: self.run(argv, check=False).stdout, 10, " ".join(argv)))

    def pid(self, unit: str) -> int:
        """Return the main pid of a unit; 0 where it has none."""
        return int(self.unit(unit)["MainPID"])

    def pids(self, unit: str) -> list[int]:
        """Return the processes in the cgroup of a unit."""
        group = self.unit(unit).get("ControlGroup", "")
        files = (self.cgroup / "payload" / group.lstrip("/")).rglob("cgroup.procs") if group else ()
        outer = [int(number) for file in files for number in file.read_text().split()]
        return sorted(pid for number in outer if (pid := _inner_pid(number)))

    def start_time(self, pid: int) -> int:
        """Return when a process started, in clock ticks since the host booted."""
        return int(self.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])

    def maps(self, pid: int) -> set[str]:
        """Return the paths of the files that a process executes from."""
        rows = [row.split(None, 5) for row in self.read(f"/proc/{pid}/maps").splitlines()]
        return {row[5] for row in rows if len(row) == 6 and "x" in row[1] and row[5].startswith("/")}

    def replaced(self) -> dict[int, set[str]]:
        """Return pid → files that it executes from though another file, or none, is at their path now."""
        found: dict[int, set[str]] = {}
        for row in self.python(REPLACED).stdout.splitlines():
            pid, path = row.split(" ", 1)
            found.setdefault(int(pid), set()).add(path.strip("'"))
        return found

    def starts(self) -> Counter[str]:
        """Return how often each unit was started, as systemd told the journal."""
        counted = Counter(str(row.get("UNIT", "")) for row in self.journal(message_id=UNIT_STARTED))
        counted["systemd-journald.service"] = len(self.journal(message_id=JOURNAL_STARTED))
        return counted

    def journal(self, *, unit: str = "", identifier: str = "", message_id: str = "") -> list[dict[str, Any]]:
        """Return journal entries as journald has them, oldest first."""
        words = [f"--unit={unit}"] if unit else []
        words += [f"--identifier={identifier}"] if identifier else []
        words += [f"MESSAGE_ID={message_id}"] if message_id else []
        return self._journal(*words)

    def _journal(self, *words: str) -> list[dict[str, Any]]:
        self.run(["journalctl", "--sync"])
        done = self.run(["journalctl", "--no-pager", "--quiet", "--output=json", "--all", *words])
        return [json.loads(row) for row in done.stdout.splitlines()]

    # The product

    def install(self, deb: Path) -> Done:
        """Install a package file of the host with apt."""
        self.copy_in(deb, f"/root/{deb.name}")
        return self.run(["apt-get", "-y", "install", f"/root/{deb.name}"], timeout=180)

    def agentctl(self, *words: str, user: str = "root", timeout: float = 120) -> Answer:
        """Run `agentctl … --json`; never fails by itself: look at `status`."""
        done = self.run(["agentctl", *words, "--json"], user=user, timeout=timeout, check=False)
        try:
            data = json.loads(done.stdout) if done.stdout.strip() else None
        except ValueError:
            raise AssertionError(f"no JSON: {done}") from None
        return Answer(done.status, data, done.stderr)

    def wait(self, timeout: float = 60) -> None:
        """Wait until aftercare is done with every transaction that ended before now."""
        answer = self.agentctl("wait", "--timeout", str(timeout), timeout=timeout + 30)
        assert answer.status == 0, f"agentctl wait: {answer}\n{self.report()}"

    def kill_daemon(self) -> int:
        """kill -9 the daemon; return the pid that it had."""
        pid = self.pid("aftercare.service")
        assert pid, "aftercare.service is not running"
        self.run(["kill", "-KILL", str(pid)])
        return pid

    def report(self) -> str:
        """Return what a person needs to see when a test on this machine failed."""
        if not self.leader:
            return self.console.read_text(errors="replace")[-2000:]
        journal = "journalctl --no-pager -q -b -o short-monotonic -u aftercare.service | tail -n 60"
        script = f"systemctl --failed --no-legend; {journal}; timeout 10 agentctl status"
        done = self.run(["sh", "-c", script], check=False, timeout=60)
        return done.stdout + done.stderr


def _inner_pid(outer: int) -> int:
    """Return the pid inside of a process that the host knows as `outer`; 0 where it has ended meanwhile."""
    try:
        status = Path(f"/proc/{outer}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)
    return int(found[1]) if found else 0
