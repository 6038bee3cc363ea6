"""`make demo`: the main job done for real, for a person to watch.

A throwaway Debian 12 with nginx, sshd and exim4 over the libraries that its release came with gets the upgrades that
its archives have for it now, while aftercared's journal streams by. Exit status: 0 where every service came back
fresh, 1 where not, 3 where it cannot be shown here. Changes nothing outside of the cache.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tests.e2e import builder, roots
from tests.e2e.machine import Machine

SUITE = "bookworm"
SERVICES = ("nginx.service", "ssh.service", "exim4.service")
HELD = "nginx nginx-common nginx-light"
"""Its own maintainer script would restart it; held back, it is only the libraries beneath it that change."""
BEGUN = time.monotonic()


def main() -> int:
    """Show it and return the exit status."""
    try:
        say("making what is not kept from an earlier time: a root file system, and the package from this tree")
        base, deb = roots.base(SUITE), builder.package(SUITE)
        say("booting a throwaway Debian 12 with nginx, sshd and exim4")
        with Machine(base) as machine:
            fresh = show(machine, deb)
    except roots.Missing as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 3
    except AssertionError as problem:
        print(f"demo: this is not how it should go: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    say("the machine is gone")
    print(f"  The next time is quicker by the cache in {roots.cache()}; `sudo make clean-cache` removes it.")
    print("  `sudo make install` installs aftercare here.")
    return 0 if fresh else 1


def show(machine: Machine, deb: Path) -> bool:
    """Install, upgrade and tell; return whether the services came back without replaced code."""
    say(f"installing the package: apt install ./{deb.name}")
    machine.run(f"apt-mark hold {HELD}")
    machine.install(deb)
    machine.wait()
    before = {unit: first(machine, unit) for unit in SERVICES}
    command(machine, "agentctl status")
    with journal(machine):
        say(f"the real upgrade, {library(machine)} among others: apt-get upgrade")
        upgrade(machine)
        stale = replaced(machine)
        print(f"  apt has ended; these services still run replaced code: {', '.join(stale) or 'none'}", flush=True)
        machine.wait(120)
    say("afterwards")
    command(machine, "agentctl status")
    command(machine, "agentctl why nginx")
    return compare(machine, before)


def library(machine: Machine) -> str:
    """Return what becomes of the library that nginx and sshd map, in words."""
    pair = machine.base.pair(machine.base.crypto)
    return f"{pair.package} {pair.old} → {pair.new}"


def first(machine: Machine, unit: str) -> int:
    """Return the process that a service began with; 0 where it has none."""
    return machine.pid(unit) or min(machine.pids(unit), default=0)


def upgrade(machine: Machine) -> None:
    """Run apt's upgrade and print what it sets up."""
    apt = machine.start("exec apt-get -y -o Dpkg::Use-Pty=0 upgrade 2>&1")
    assert apt.stdout
    for line in apt.stdout:
        if line.startswith(("Setting up", "E:", "dpkg: error")):
            print(f"  apt     │ {line.rstrip()}", flush=True)
    if apt.wait() != 0:
        raise roots.Missing(f"apt-get upgrade ended with {apt.returncode} in the throwaway machine")


@contextlib.contextmanager
def journal(machine: Machine) -> Iterator[None]:
    """Print what aftercared tells the journal, as it does, for as long as the `with` lasts."""
    words = ["journalctl", "--follow", "--lines=0", "--output=cat", "--unit=aftercare.service"]
    process = machine.start(words)
    assert process.stdout
    printer = threading.Thread(target=_print_journal, args=(process.stdout,), daemon=True)
    printer.start()
    try:
        yield
    finally:
        time.sleep(0.5)
        process.kill()
        process.wait()
        printer.join(5)


def _print_journal(lines: IO[str]) -> None:
    for line in lines:
        print(f"  journal │ {line.rstrip()}", flush=True)


def command(machine: Machine, words: str) -> None:
    """Run a command of the machine and print what it says, as its user would see it."""
    print(f"  # {words}")
    done = machine.run(words, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"  {line}", flush=True)


def replaced(machine: Machine) -> list[str]:
    """Return which of the services run code that is no longer on the disk, told by path and inode alone."""
    old = machine.replaced()
    return [unit for unit in SERVICES if any(pid in old for pid in machine.pids(unit))]


def compare(machine: Machine, before: dict[str, int]) -> bool:
    """Print what became of each service; return whether all are new processes that run nothing replaced."""
    stale = replaced(machine)
    print(f"\n  {'service':16} {'first process':>16}   runs replaced code")
    for unit, pid in before.items():
        print(f"  {unit:16} {pid:>6} → {first(machine, unit):<7}   {'yes' if unit in stale else 'no'}")
    return not stale and all(first(machine, unit) not in (0, pid) for unit, pid in before.items())


def say(text: str) -> None:
    """Announce the next step."""
    print(f"\n== {time.monotonic() - BEGUN:3.0f} s · {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
