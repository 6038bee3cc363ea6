"""The harness itself: what the scenarios rely on, and that they could fail."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.e2e import roots, scenario
from tests.e2e.machine import Machine
from tests.e2e.nspawn import sweep


def test_without_aftercare_an_upgrade_leaves_replaced_code_running(bare: Machine) -> None:
    with bare.ssh() as admin:
        before = scenario.look(bare)
        assert {"nginx.service", "ssh.service", "exim4.service"} <= before.restartable
        scenario.by_apt(admin)
        old = bare.replaced()
        assert set().union(*before.users.values()) <= set(old)
        assert not scenario.all_restarted(bare, before)


def test_the_oracle_sees_a_restart_and_counts_it(bare: Machine) -> None:
    with bare.ssh() as admin:
        scenario.by_dpkg(admin)
    before = scenario.look(bare, ["nginx-common"])
    assert set(bare.pids("nginx.service")) <= set(bare.replaced())
    bare.run("systemctl restart nginx.service")
    assert not set(bare.pids("nginx.service")) & set(bare.replaced())
    assert scenario.restarts_since(bare, before) == {"nginx.service": 1}


def test_machines_are_alone_in_their_network(bare: Machine) -> None:
    assert [row.split()[0] for row in bare.run("ip -br link").stdout.splitlines()] == ["lo"]


def test_the_machine_of_a_killed_test_run_is_removed_by_the_next(base: roots.Base) -> None:
    script = f"""
import os, signal
from tests.e2e import roots
from tests.e2e.machine import Machine
machine = Machine(roots.base({base.suite!r}))
print(machine.home, machine.leader, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    tree = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-B", "-c", script], cwd=tree, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    home, leader = done.stdout.split()
    sweep()
    assert not Path(home).exists()
    assert not psutil.pid_exists(int(leader)) or psutil.Process(int(leader)).status() == psutil.STATUS_ZOMBIE
    assert not Path(f"/run/systemd/nspawn/propagate/{Path(home).name}").exists()
