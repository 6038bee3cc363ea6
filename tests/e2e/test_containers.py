"""Containers of real engines: reported by name, never restarted, and fresh once one does what is advised."""

from typing import Any

import pytest

from tests.e2e import engines, scenario
from tests.e2e.machine import Machine
from tests.e2e.test_policy import policy

EVERYTHING = '[[rule]]\nmatch = ["libpod-*", "machine-*", "user@*.service/*"]\ndisposition = "restart"\n'
RUN = "run --detach --network none --stop-signal KILL"
HOSTS = "--volume /usr/bin/tiny:/usr/bin/tiny:ro image /usr/bin/tiny infinity"
SHOP = f"""
[Service]
Type=forking
ExecStart=/usr/bin/podman --runtime crun {RUN} --cgroups disabled --name shop {HOSTS}
ExecStop=/usr/bin/podman rm --force shop
"""
BOX = """
lxc.uts.name = box
lxc.rootfs.path = dir:/var/lib/lxc/box/rootfs
lxc.net.0.type = empty
lxc.mount.entry = /usr/bin/tiny usr/bin/tiny none bind,ro,create=file 0 0
lxc.init.cmd = /sbin/init
lxc.apparmor.profile = unconfined
lxc.pty.max = 0
lxc.tty.max = 0
"""
REPLACE = "for file in /usr/bin/mine /lib/x86_64-linux-gnu/libc.so.6; do cp $file /new; mv /new $file; done"
NSPAWN = "systemd-nspawn -q -D /var/lib/machines/nest --boot --private-network --resolv-conf=off --timezone=off"


def start(machine: Machine) -> None:
    """Start a container of each engine that runs the host's program, and one of podman's that runs its own."""
    machine.run(f"podman {RUN} --name web {HOSTS}; podman {RUN} --name own image /usr/bin/mine infinity")
    machine.write("/etc/systemd/system/shop.service", SHOP)
    machine.run("systemctl daemon-reload; systemctl start shop")
    machine.run("mkdir /var/lib/lxc/box; cp -a /var/tmp/image /var/lib/lxc/box/rootfs")
    machine.write("/var/lib/lxc/box/config", BOX)
    machine.run("lxc-start --name box; cp -a /var/tmp/image /var/lib/machines/nest")
    machine.run(f"{NSPAWN} --bind-ro=/usr/bin/tiny --console=pipe </dev/null >/var/tmp/nest.log 2>&1 &")
    machine.run("loginctl enable-linger alice")
    machine.until(lambda: machine.exists("/run/user/1000/bus"), 20, "the manager of alice")
    alice(machine, "import /var/tmp/image.tar image")
    alice(machine, f"{RUN} --name hers {HOSTS}")
    machine.until(lambda: len(running(machine)) == 5, 20, "five containers to run the host's program")


def alice(machine: Machine, words: str) -> str:
    """Have podman do something as alice, without root, and return what it said."""
    bus = {"XDG_RUNTIME_DIR": "/run/user/1000", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus"}
    return machine.run(f"cd; podman {words}", user="alice", env=bus).stdout.strip()


def running(machine: Machine) -> set[int]:
    """Return the processes that run the host's `tiny`, or did when they were started."""
    return {int(pid) for pid in machine.run("pgrep -x tiny", check=False).stdout.split()}


def told(findings: dict[str, Any], words: str) -> dict[str, Any]:
    """Return the one finding whose reason begins with these words."""
    (found,) = [item for item in findings.values() if item["evidence"]["reason"].startswith(words)]
    return dict(found)


@pytest.mark.suites("bookworm", "trixie")
def test_containers_that_run_a_file_of_the_hosts_are_named_left_alone_and_fresh_once_the_advice_is_taken(
    machine: Machine,
) -> None:
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 0)])
    engines.install(machine)
    start(machine)
    machine.run(["podman", "exec", "own", "sh", "-c", REPLACE])
    machine.wait()
    policy(machine, EVERYTHING)
    before = running(machine)
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.wait()
    status = machine.agentctl("status")
    assert running(machine) == before and not status.data["restarts"], "aftercare has restarted a container"
    assert {pid for pid in machine.replaced() if pid in before} == before
    hers = alice(machine, "ps --quiet")
    kinds = {
        "podman container web (": ("container", "podman restart web"),
        "LXC container box": ("container", "lxc-stop --reboot --name box"),
        "container or machine nest": ("container", "machinectl reboot nest"),
        "it runs a container": ("defer", "agentctl restart shop.service"),
        f"podman container {hers}": ("session", f"podman restart {hers}"),
    }
    for words, (disposition, advice) in kinds.items():
        found = told(status.findings, words)
        assert found["evidence"]["disposition"] == disposition and found["advice"].endswith(advice), found
        machine.run(found["advice"])
    assert "/lxc.payload.box" in status.findings, "each container beside systemd's units is told apart"
    assert len(status.findings) == len(kinds), "what a container replaced in its own image is no matter of the host"
    machine.until(lambda: len(running(machine)) == 5 and not running(machine) & before, 20, "new processes")
    assert machine.agentctl("check", "libraries").findings == {}


@pytest.mark.suites("bookworm")
def test_an_upgrade_of_what_keeps_containers_ends_none_and_anybody_may_look(machine: Machine) -> None:
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 0)])
    engines.install(machine)
    start(machine)
    before = running(machine)
    machine.run(["dpkg", "-i", scenario.rebuilt(machine, "conmon")])
    machine.wait()
    findings = machine.agentctl("status").findings
    assert findings["shop.service"]["evidence"]["disposition"] == "defer"
    assert {item["evidence"]["disposition"] for item in findings.values()} == {"container", "defer", "session"}
    assert running(machine) == before
    looked = machine.agentctl("check", "libraries", user="alice")
    assert (looked.status, looked.stderr) == (1, "") and all("libpod" in name for name in looked.findings)
