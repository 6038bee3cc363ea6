"""The package: what its installation, upgrade, removal and neighbours do."""

from pathlib import Path

import pytest

from tests.e2e import scenario
from tests.e2e.machine import UNIT_STARTED, Machine

STARTED = "1e9ba4c98e384bac992c7302b030643a"
NEXT_VERSION = r"""
cd /root
dpkg-deb -R old.deb new
sed -i 's/^Version: .*/&+next/' new/DEBIAN/control
sed -i 's/^__version__ = .*/__version__ = "99.1"/' new/usr/share/aftercare/agent/__init__.py
sed -i '/__init__/d' new/DEBIAN/md5sums
dpkg-deb --root-owner-group -b new new.deb
"""
LISTING = r"""
for path in /proc /sys /run /tmp /dev /mirror /root /var/log /var/tmp; do set -- "$@" -path $path -o; done
for path in lib/dpkg cache lib/systemd lib/apt spool/exim4; do set -- "$@" -path "/var/$path/*" -o; done
find / -xdev \( "$@" -false \) -prune -o -printf '%p %M %u:%g\n' | sort
find /run /etc /var/lib -name '*aftercare*'
sha256sum /etc/passwd /etc/dpkg/dpkg.cfg /var/lib/dpkg/diversions /var/lib/dpkg/statoverride
"""
GROUP_FILES = {"/etc/group", "/etc/group-", "/etc/gshadow", "/etc/gshadow-"}


def test_purge_leaves_nothing_but_the_group(bare: Machine, package: Path) -> None:
    before = set(bare.run(LISTING).stdout.splitlines())
    bare.install(package)
    bare.wait()
    scenario.upgrade(bare)
    bare.write("/etc/aftercare/aftercare.toml", 'mode = "observe"\n')
    bare.run("apt-get -y purge aftercare", timeout=60)
    after = set(bare.run(LISTING).stdout.splitlines())
    added = {row for row in after - before if row.split()[0] not in GROUP_FILES and "aftercare" in row}
    assert not added, added
    assert bare.run("getent group aftercare").stdout.startswith("aftercare:")
    assert bare.run("systemctl --failed --no-legend").stdout == ""
    assert "aftercare" not in bare.run("systemctl list-unit-files --no-legend; ls /run").stdout
    bare.install(package)
    bare.wait()


@pytest.mark.suites("bookworm")
def test_after_a_removal_without_purge_dpkg_works_and_says_nothing_of_us(machine: Machine) -> None:
    machine.run("apt-get -y remove aftercare")
    assert machine.run("test -e /etc/dpkg/dpkg.cfg.d/aftercare").status == 0, "conffiles stay until the purge"
    done = machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    assert "aftercare" not in done.stdout + done.stderr
    machine.run("apt-get -y install nginx-light")


@pytest.mark.suites("trixie")
def test_apt_is_not_bothered_whatever_the_state_of_the_daemon(machine: Machine) -> None:
    deb = scenario.tiny_package(machine, 1)
    for spoil in ("systemctl stop aftercare", "rm -rf /run/aftercare", "mkdir -p /run/aftercare/hook"):
        machine.run(spoil)
        done = machine.run(["dpkg", "-i", deb])
        assert "aftercare" not in done.stdout + done.stderr
    machine.run("rm -rf /run/aftercare; systemctl start aftercare.service")
    machine.wait()
    before = scenario.upgrade(machine)
    scenario.assert_all_fresh(machine, before)


def test_an_upgrade_of_aftercare_itself_keeps_what_it_remembers(machine: Machine, package: Path) -> None:
    before = scenario.upgrade(machine)
    known = machine.agentctl("history").data
    pid = machine.pid("aftercare.service")
    machine.copy_in(package, "/root/old.deb")
    machine.run(NEXT_VERSION)
    machine.run("dpkg -i /root/new.deb")
    machine.wait()
    assert machine.run("agentctl --version").stdout.strip() == "agentctl 99.1"
    assert machine.pid("aftercare.service") not in (0, pid)
    told = machine.journal(identifier="aftercared", message_id=STARTED)
    assert "99.1" in told[-1]["MESSAGE"], "the daemon does not run its new version"
    after = machine.agentctl("history").data
    assert [row["id"] for row in known["transactions"]] == [row["id"] for row in after["transactions"]][1:]
    assert scenario.restarts_since(machine, before)["nginx.service"] == 1


def test_a_new_c_library_renews_everything_and_the_agent_last(machine: Machine) -> None:
    before = scenario.look(machine, ["libc6"])
    assert {"aftercare.service", "nginx.service", "cron.service", scenario.MANAGER} <= set(before.users)
    machine.run(["dpkg", "-i", machine.base.pair("libc6").deb])
    machine.wait(120)
    scenario.assert_all_fresh(machine, before)
    scenario.assert_restarted_once(machine, before)
    (transaction,) = machine.agentctl("history").data["transactions"]
    pair = machine.base.pair("libc6")
    assert [(row["old"], row["new"]) for row in transaction["changes"]] == [(pair.old, pair.new)]
    started = [row.get("UNIT", "") for row in machine.journal(message_id=UNIT_STARTED)]
    services = [unit for unit in started if unit in before.restartable]
    assert services[-1] == scenario.AGENT, "the agent goes last"


def test_needrestart_beside_us_restarts_first_and_we_find_everything_fresh(machine: Machine) -> None:
    machine.run("apt-get -y install needrestart")
    machine.write("/etc/needrestart/conf.d/auto.conf", "$nrconf{restart} = 'a';\n")
    machine.wait()
    before = scenario.upgrade(machine)
    scenario.assert_all_fresh(machine, before)
    counted = scenario.restarts_since(machine, before)
    assert {unit: count for unit, count in counted.items() if count != 1 and unit in before.restartable} == {}
    doctor = machine.agentctl("doctor").data
    assert any("needrestart" in verdict["what"] for verdict in doctor["verdicts"])


def test_doctor_finds_a_fresh_installation_sound(machine: Machine) -> None:
    answer = machine.agentctl("doctor")
    assert (answer.status, answer.data["sound"]) == (0, True), answer.data
    machine.run("rm /etc/dpkg/dpkg.cfg.d/aftercare")
    answer = machine.agentctl("doctor")
    assert (answer.status, answer.data["sound"]) == (1, False), answer.data
