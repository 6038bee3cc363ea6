"""A real login over the machine's sshd, kept open: what has to survive an upgrade."""

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import time
from typing import Self

from tests.e2e.booted import ENVIRONMENT, Booted, Done

MARKS = itertools.count(1)


class Session:
    """A shell over ssh that stays open. Leaving the `with` logs out. The client is not to be seen inside."""

    def __init__(self, machine: Booted, user: str) -> None:
        self.machine = machine
        argv = ["ssh", "-i", "/root/.ssh/id_ed25519", "-T", f"{user}@127.0.0.1", "/bin/sh"]
        enter = ["nsenter", "-t", str(machine.leader), "-m", "-n", "-r", "-w", "--"]
        self._client = subprocess.Popen(
            [*enter, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        self.pid = int(self.run("echo $$").stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.close()

    def run(self, script: str, check: bool = True) -> Done:
        """Run a script in the session (a sub-shell of it) and return what it printed, errors included."""
        assert self._client.stdin and self._client.stdout
        begun, mark, lines = time.monotonic(), f"--end-{next(MARKS)}--", list[str]()
        self._client.stdin.write(f'({script}\n) </dev/null 2>&1; echo "{mark}$?"\n')
        self._client.stdin.flush()
        while mark not in (line := self._client.stdout.readline()):
            assert line, f"the ssh session ended during `{script}`:\n{''.join(lines)}"
            lines.append(line)
        text, _, status = line.rpartition(mark)
        done = Done(script, int(status), "".join([*lines, text]), "", time.monotonic() - begun)
        assert not check or done.status == 0, str(done)
        return done

    def background(self, script: str) -> int:
        """Leave a script running in the session and return its pid."""
        return int(self.run(f"nohup sh -c {shlex.quote(script)} >/dev/null 2>&1 & echo $!").stdout)

    def close(self) -> None:
        """Log out."""
        assert self._client.stdin
        with contextlib.suppress(OSError):
            self._client.stdin.close()
        try:
            self._client.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._client.pid, signal.SIGKILL)
            self._client.wait()
        if self._client.stdout:
            self._client.stdout.close()
