"""Programs that an interpreter reads: reported when a module of theirs is upgraded, restarted where policy says so."""

import pytest

from tests.e2e.machine import Machine

POLICY = "/etc/aftercare/aftercare.toml.d/50-likely.toml"
DAEMON = "#!/usr/bin/python3\nimport part, time\nwhile True: time.sleep(1000)\n"
UNIT = "[Service]\nExecStart=/usr/bin/python3 -Es /usr/share/demo/demod.py\n"
BUILD = r"""
set -eu
make() { # name version further-field path content
    d=/root/$1-$2
    mkdir -p "$d/DEBIAN" "$d/$(dirname "$4")"
    printf '%s' "$5" >"$d/$4"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: n <n@n>\n%sDescription: d\n' "$1" "$2" "$3" >"$d/DEBIAN/control"
    dpkg-deb --root-owner-group -b "$d" "/root/$1_$2.deb" >/dev/null
}
module=usr/lib/python3/dist-packages/part.py
make python3-part 1 '' $module 'version = 1'
make python3-part 2 '' $module 'version = 2'
mkdir -p /root/demo-daemon-1/usr/lib/systemd/system
cp /root/demo.service /root/demo-daemon-1/usr/lib/systemd/system/
make demo-daemon 1 "Depends: python3-part
" usr/share/demo/demod.py "$(cat /root/demod.py)"
"""


@pytest.fixture
def daemon(machine: Machine) -> Machine:
    """A machine with a daemon in Python that is older than what comes."""
    machine.write("/root/demod.py", DAEMON)
    machine.write("/root/demo.service", UNIT)
    machine.run(["sh", "-c", BUILD])
    machine.run(["dpkg", "-i", "/root/python3-part_1.deb", "/root/demo-daemon_1.deb"])
    machine.wait()
    machine.run("systemctl daemon-reload; sleep 3; systemctl start demo.service; sleep 3")
    return machine


def test_a_daemon_whose_module_was_upgraded_is_reported_with_what_it_runs(daemon: Machine) -> None:
    pid = daemon.pid("demo.service")
    daemon.run(["dpkg", "-i", "/root/python3-part_2.deb"])
    daemon.wait()
    found = daemon.agentctl("status").findings["demo.service"]
    evidence = found["evidence"]
    assert (found["severity"], evidence["confidence"], evidence["disposition"]) == ("info", "likely", "defer")
    (file,) = evidence["processes"][0]["files"]
    assert (file["package"], file["running"], file["installed"]) == ("python3-part", "1", "2")
    assert daemon.pid("demo.service") == pid, "it was restarted"


def test_policy_has_it_restarted_and_fresh(daemon: Machine) -> None:
    daemon.write(POLICY, 'likely = "restart"\n')
    daemon.run("systemctl reload aftercare.service")
    pid = daemon.pid("demo.service")
    daemon.run(["dpkg", "-i", "/root/python3-part_2.deb"])
    daemon.wait()
    assert daemon.pid("demo.service") not in (0, pid)
    assert "demo.service" not in daemon.agentctl("status").findings
