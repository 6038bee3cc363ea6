"""A booted Debian as such: how it starts and ends, and how commands run in it; `machine.py` says what for."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from tests.e2e import host, nspawn, roots

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_PAGER": "",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command; `seconds` by the clock."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float

    def json(self) -> Any:
        """Return the standard output as JSON data."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        how = f"ended with {self.status} after {self.seconds:.1f} s"
        return f"`{self.command}` {how}:\n{self.stdout}{self.stderr}"


class Booted:
    """A booted copy of a root file system, and commands in it.

    base: where /mirror and the pairs come from. tree: the root to copy, the base's own by default.
    """

    def __init__(self, base: roots.Base, tree: Path | None = None) -> None:
        host.require()
        nspawn.sweep()
        self.base = base
        self.suite = base.suite
        self.name = nspawn.new_name()
        self.home, self._lock = nspawn.claim(self.name)
        self.root = self.home / "root"
        self.console = self.home / "console"
        self.cgroup = nspawn.own_cgroup(self.name)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0
        try:
            subprocess.run(["cp", "-a", "--reflink=auto", str(tree or base.tree), str(self.root)], check=True)
            self.boot()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()

    def boot(self, expect: str = "running") -> None:
        """Start the machine and wait until systemd says that it is `expect`."""
        argv = ["systemd-nspawn", "-q", "-D", str(self.root), "-M", self.name, "--register=no", "--keep-unit"]
        argv += ["--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        argv += [f"--bind-ro={self.base.mirror}:/mirror", "--capability=CAP_CHECKPOINT_RESTORE"]
        argv += ["--boot", "--console=pipe"]
        with open(self.console, "ab") as console:
            self._nspawn = subprocess.Popen(
                nspawn.into(self.cgroup, argv),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self.leader = self.until(self._find_leader, 20, "systemd as PID 1")
        state = self.until(self._state, 60, "the end of the boot")
        if state != expect:
            script = "systemctl --failed --no-legend; journalctl -p err --no-pager | tail -n 20"
            failed = self.run(script, check=False)
            raise AssertionError(f"{self.name} came up {state}, not {expect}:\n{failed.stdout}")

    def poweroff(self, timeout: float = 60) -> None:
        """Shut down as an administrator would; `boot` starts the machine again on the same disk."""
        self.run(["systemctl", "poweroff"], check=False)
        assert self._nspawn
        self._nspawn.wait(timeout)
        self.leader = 0

    def close(self) -> None:
        """Kill the machine and remove everything that it had."""
        nspawn.kill(self.cgroup / "payload")
        if self._nspawn:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(5)
        self.leader = 0
        nspawn.discard(self.home)
        self._lock.close()

    def _find_leader(self) -> int:
        assert self._nspawn
        if self._nspawn.poll() is not None:
            status, said = self._nspawn.returncode, self.console.read_text(errors="replace")
            raise AssertionError(f"systemd-nspawn ended with {status}:\n{said}")
        with contextlib.suppress(OSError):
            pid = self._nspawn.pid
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                numbers = re.search(r"^NSpid:.*\t1$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
                if numbers and Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return int(child)
        return 0

    def _state(self) -> str:
        done = self.run(["systemctl", "is-system-running", "--wait"], check=False)
        state = done.stdout.strip()
        return state if state in ("running", "degraded", "maintenance") else ""

    def run(
        self,
        command: str | Sequence[str],
        *,
        user: str = "root",
        timeout: float = 120,
        check: bool = True,
        stdin: str = "",
        env: dict[str, str] | None = None,
    ) -> Done:
        """Run a script (str) or program (list) inside; with `check`, any status but 0 is an AssertionError.

        Bytes that are no UTF-8 survive as surrogates. After `timeout` seconds everything of it is killed.
        """
        words = " ".join(command) if not isinstance(command, str) else command
        begun = time.monotonic()
        process = self.start(command, user=user, env=env, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException as problem:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if isinstance(problem, subprocess.TimeoutExpired):
                raise AssertionError(f"`{words}` did not end within {timeout:g} s:\n{out}{err}") from None
            raise
        done = Done(words, process.returncode, out, err, time.monotonic() - begun)
        assert not check or done.status == 0, str(done)
        return done

    def start(
        self,
        command: str | Sequence[str],
        *,
        user: str = "root",
        env: dict[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[str] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a script or program inside and return at once; whoever starts it ends it."""
        argv = ["sh", "-euc", command] if isinstance(command, str) else list(command)
        home = {"HOME": f"/home/{user}", "USER": user} if user != "root" else {}
        if user != "root":
            argv = ["runuser", "-u", user, "--", *argv]
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return subprocess.Popen(
            nspawn.into(self._harness(), [*enter, *argv]),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            env={**ENVIRONMENT, **home, **(env or {})},
            start_new_session=True,
        )

    def _harness(self) -> Path | None:
        path = self.cgroup / "payload/system.slice/harness.service"
        return path if path.is_dir() else None

    def python(self, script: str, *arguments: str, user: str = "root", check: bool = True) -> Done:
        """Run a Python script inside."""
        return self.run(["/usr/bin/python3", "-c", script, *arguments], user=user, check=check)

    def until(self, look: Callable[[], Any], timeout: float, what: str, pause: float = 0.05) -> Any:
        """Return the first true value of `look`; after `timeout` seconds an AssertionError names `what`."""
        return self.by(time.monotonic() + timeout, look, what, pause)

    def by(self, deadline: float, look: Callable[[], Any], what: str, pause: float = 0.05) -> Any:
        """Return the first true value of `look`, at the latest at `deadline` by the monotonic clock."""
        begun = time.monotonic()
        while not (value := look()):
            waited = time.monotonic() - begun
            assert time.monotonic() < deadline, f"{self.name}: waited {waited:.1f} s in vain for {what}"
            time.sleep(pause)
        return value
