"""What the daemon costs while nothing happens, and how it is locked in."""

import re
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import scenario
from tests.e2e.machine import Machine

IDLE = 62
BEATS = 4
"""Signs of life in that time: one each third of the watchdog's minute."""
MEBIBYTE = 1024
COUNT = r"""
import os, re, sys
# Of all threads, voluntary or not: a sleeping process has none.
total = 0
for task in os.listdir(f"/proc/{sys.argv[1]}/task"):
    text = open(f"/proc/{sys.argv[1]}/task/{task}/status").read()
    total += sum(int(number) for number in re.findall(r"ctxt_switches:\t(\d+)", text))
print(total)
"""


@contextmanager
def counting_renames() -> Iterator[list[bytes]]:
    """Collect a row for each time that any machine on this kernel got another name: who waits for one is woken by all."""
    seen: list[bytes] = []
    over = threading.Event()

    def watch() -> None:
        with open("/proc/sys/kernel/hostname", "rb", buffering=0) as name:
            poll = select.poll()
            poll.register(name, select.POLLPRI)
            while not over.is_set():
                name.seek(0)
                row = name.read()
                seen.extend([row] if poll.poll(200) else [])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_a_minute_of_idling_wakes_up_for_the_watchdog_alone_and_memory_is_small(machine: Machine) -> None:
    """After an upgrade: its scans and restarts leave nothing that ticks, and no memory in use."""
    scenario.upgrade(machine)
    time.sleep(5)
    pid = machine.pid("aftercare.service")
    assert machine.unit("aftercare.service")["WatchdogUSec"] == "1min"
    with counting_renames() as renamed:
        before = int(machine.python(COUNT, str(pid)).stdout)
        time.sleep(IDLE)
        woken = int(machine.python(COUNT, str(pid)).stdout) - before
    most = 2 * (BEATS + len(renamed))
    assert 1 <= woken <= most, f"{woken} context switches in {IDLE} s, {len(renamed)} machines renamed"
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", machine.read(f"/proc/{pid}/status"))[0])
    assert resident <= 40 * MEBIBYTE, f"{resident / MEBIBYTE:.1f} MiB resident"
    assert machine.pids("aftercare.service") == [pid], "workers stayed behind"


def test_the_sandbox_is_as_tight_as_promised(machine: Machine) -> None:
    shown = machine.run("systemd-analyze security --no-pager aftercare.service", check=False).stdout
    exposure = re.findall(r"Overall exposure level for aftercare.service: ([\d.]+)", shown)
    assert exposure and float(exposure[0]) <= 2.7, shown


@pytest.mark.suites("bookworm")
def test_a_loop_that_hangs_is_ended_by_the_watchdog_and_comes_back(machine: Machine) -> None:
    """A stopped process gives no sign of life: systemd kills it, and the next one goes on."""
    machine.run("mkdir -p /etc/systemd/system/aftercare.service.d")
    machine.write("/etc/systemd/system/aftercare.service.d/soon.conf", "[Service]\nWatchdogSec=8\n")
    machine.run("systemctl daemon-reload; systemctl restart aftercare.service")
    pid = machine.pid("aftercare.service")
    time.sleep(18)
    assert machine.pid("aftercare.service") == pid, "it gave no sign of life in time"
    machine.run(["kill", "-STOP", str(pid)])
    replaced = lambda: machine.pid("aftercare.service") not in (0, pid)  # noqa: E731
    machine.until(replaced, 30, "systemd to replace a hung daemon")
    machine.wait()
