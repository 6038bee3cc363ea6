"""What will be done about a stale unit: its nature, its state, and policy as it is shipped."""

import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import agent
from agent.config.settings import Settings, apply
from agent.model.facts import StaleProcess, Unit
from agent.model.findings import Confidence
from agent.model.restarts import Disposition, Rule, rule_for
from agent.stale.disposition import dispose

VENDOR = Path(agent.__file__).parent / "data/aftercare.toml"
SHIPPED = apply(Settings(), tomllib.loads(VENDOR.read_text()), "vendor").rules
NGINX = Unit("nginx.service", main_pid=10, control_group="/system.slice/nginx.service")
MASTER = StaleProcess(10, datetime(2026, 11, 20, tzinfo=UTC), "/usr/sbin/nginx", "nginx", 0, ())
WORKER = replace(MASTER, pid=11)


def disposed(
    unit: Unit | None,
    processes: tuple[StaleProcess, ...] = (MASTER,),
    rules: tuple[Rule, ...] = SHIPPED,
    confidence: Confidence = Confidence.CERTAIN,
    attempted: bool = False,
    held: tuple[str, ...] = (),
) -> Disposition:
    disposition, reason = dispose(unit, processes, rules, confidence, attempted, held)
    assert reason and "\n" not in reason
    return disposition


def test_an_ordinary_service_is_restarted() -> None:
    assert disposed(NGINX) is Disposition.RESTART
    assert disposed(NGINX, rules=()) is Disposition.RESTART


def test_the_last_rule_that_matches_decides_and_none_means_restart() -> None:
    rules = (Rule("*"), Rule("n*.service", Disposition.NEVER), Rule("ng*.service", Disposition.DEFER, why="busy"))
    assert disposed(NGINX, rules=rules) is Disposition.DEFER
    assert rule_for("nscd.service", rules).disposition is Disposition.NEVER
    assert rule_for("NGINX.service", rules).pattern == "*"
    assert rule_for("x.service", ()).disposition is Disposition.RESTART


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (None, Disposition.NEVER),
        (Unit("session-3.scope", kind="scope", transient=True), Disposition.SESSION),
        (Unit("user@1000.service", kind="notify"), Disposition.SESSION),
        (Unit("getty@tty1.service"), Disposition.SESSION),
        (Unit("serial-getty@ttyS0.service"), Disposition.SESSION),
        (Unit("docker-0123.scope", control_group="/system.slice/docker-0123.scope"), Disposition.CONTAINER),
        (Unit("machine-qemu.scope", control_group="/machine.slice/machine-qemu.scope"), Disposition.CONTAINER),
        (
            Unit("systemd-nspawn@x.service", control_group="/machine.slice/systemd-nspawn@x.service"),
            Disposition.CONTAINER,
        ),
        (Unit("cri-1.scope", control_group="/kubepods.slice/kubepods-pod1.slice/cri-1.scope"), Disposition.CONTAINER),
        (Unit("run-r1.scope", kind="scope", transient=True), Disposition.NEVER),
        (Unit("tmp.mount", kind="mount"), Disposition.NEVER),
        (Unit("run-u1.service", transient=True), Disposition.NEVER),
        (Unit("fsck.service", kind="oneshot"), Disposition.NEVER),
        (Unit("sshd@1-a-b.service", accept=True), Disposition.NEVER),
    ],
)
def test_what_a_unit_is_comes_before_policy(unit: Unit | None, expected: Disposition) -> None:
    assert disposed(unit, rules=(Rule("*", Disposition.RESTART),)) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"active": "activating"}, Disposition.DEFER),
        ({"active": "deactivating"}, Disposition.DEFER),
        ({"active": "failed"}, Disposition.LEFTOVER),
        ({"active": "inactive"}, Disposition.LEFTOVER),
        ({"load": "masked"}, Disposition.NEVER),
        ({"load": "not-found"}, Disposition.NEVER),
        ({"can_stop": False}, Disposition.NEVER),
        ({"can_start": False}, Disposition.NEVER),
        ({"needs_reload": True}, Disposition.DEFER),
        ({"active": "reloading"}, Disposition.RESTART),
    ],
)
def test_the_state_of_a_unit_comes_before_policy(changes: dict[str, object], expected: Disposition) -> None:
    assert disposed(replace(NGINX, **changes)) is expected


def test_a_restart_that_would_spare_the_stale_processes_is_not_made() -> None:
    spared = replace(NGINX, kill_mode="process")
    assert disposed(spared, (WORKER,)) is Disposition.LEFTOVER
    assert disposed(spared, (MASTER, WORKER)) is Disposition.RESTART
    assert disposed(replace(NGINX, kill_mode="none"), (WORKER,)) is Disposition.LEFTOVER
    assert disposed(NGINX, (WORKER,)) is Disposition.RESTART


def test_a_service_of_an_init_script_has_no_main_process_to_judge_by() -> None:
    """exim4 on bookworm: KillMode=process and no main pid, and its script stops all of it."""
    assert disposed(Unit("exim4.service", kind="forking", kill_mode="process"), (WORKER,)) is Disposition.RESTART


def test_what_was_attempted_for_this_transaction_is_left_alone_afterwards() -> None:
    assert disposed(NGINX, attempted=True) is Disposition.LEFTOVER
    assert disposed(NGINX, attempted=True, held=("libc6",)) is Disposition.LEFTOVER


def test_half_configured_packages_hold_their_units_back() -> None:
    disposition, reason = dispose(NGINX, (MASTER,), SHIPPED, Confidence.CERTAIN, False, ("libssl3", "nginx"))
    assert disposition is Disposition.DEFER
    assert "libssl3, nginx" in reason and "dpkg --configure -a" in reason


def test_what_is_only_likely_is_never_restarted_by_itself() -> None:
    disposition, reason = dispose(NGINX, (MASTER,), SHIPPED, Confidence.LIKELY, False, ())
    assert disposition is Disposition.DEFER
    assert "not proven" in reason
    never = (Rule("*", Disposition.NEVER),)
    assert disposed(NGINX, rules=never, confidence=Confidence.LIKELY) is Disposition.NEVER


def test_a_unit_that_would_take_a_deferred_one_down_with_it_is_deferred() -> None:
    disposition, reason = dispose(
        replace(NGINX, pulls=("multi-user.target", "postgresql@15-main.service")),
        (MASTER,),
        SHIPPED,
        Confidence.CERTAIN,
        False,
        (),
    )
    assert disposition is Disposition.DEFER
    assert "postgresql@15-main.service" in reason


def test_pid_1_is_reexecuted_though_systemd_would_not_restart_it() -> None:
    pid1 = Unit("init.scope", kind="scope", transient=True, can_start=False, can_stop=False)
    assert disposed(pid1) is Disposition.RESTART
    assert disposed(pid1, confidence=Confidence.LIKELY) is Disposition.DEFER
    assert disposed(pid1, attempted=True) is Disposition.LEFTOVER
    assert disposed(pid1, held=("libc6",)) is Disposition.DEFER


NEEDRESTART = """
dbus gdm greetd kdm nodm sddm wdm xdm lightdm slim lxdm xrdp bird network NetworkManager ModemManager
wpa_supplicant openvpn quagga frr tinc openswan freeswan libreswan strongswan bluetooth getty@tty1
serial-getty@ttyS0 user@1000 usbguard zfs-fuse mythtv-backend xendomains lxc lxcfs libvirtd virtlogd virtlockd
docker bacula-fd qrtr-ns rmtfs emergency rescue elogind apt-daily apt-daily-upgrade unattended-upgrades
cron-daily rc-local systemd-logind systemd-nspawn@x ifup@eth0
""".split()


@pytest.mark.parametrize("name", NEEDRESTART)
def test_what_needrestart_spares_is_spared(name: str) -> None:
    assert disposed(Unit(f"{name}.service", main_pid=10)) is not Disposition.RESTART


RULE_6 = """
postgresql@15-main mariadb mysql redis-server slapd mongod systemd-networkd networking corosync pacemaker drbd
ceph-osd@1 iscsid open-iscsi multipathd keepalived nfs-server nfs-mountd rpcbind containerd docker
kubelet crio
""".split()


@pytest.mark.parametrize("name", RULE_6)
def test_databases_networks_clusters_and_engines_are_deferred_until_the_administrator_says_restart(name: str) -> None:
    unit = Unit(f"{name}.service", main_pid=10)
    assert disposed(unit) is Disposition.DEFER
    assert disposed(unit, rules=(*SHIPPED, Rule(unit.name, Disposition.RESTART))) is Disposition.RESTART


@pytest.mark.parametrize(
    "name",
    "nginx apache2 exim4 postfix@- dovecot ssh cron rsyslog php8.2-fpm named unbound chrony atd polkit nscd "
    "systemd-journald systemd-udevd systemd-resolved systemd-timesyncd fail2ban haproxy prometheus".split(),
)
def test_ordinary_services_are_not_caught_by_the_shipped_exceptions(name: str) -> None:
    assert disposed(Unit(f"{name}.service", main_pid=10)) is Disposition.RESTART


@pytest.mark.parametrize(
    "program",
    "/usr/bin/podman /usr/bin/docker /usr/bin/docker-compose /usr/bin/lxc-start /usr/bin/systemd-nspawn "
    "/usr/bin/qemu-system-x86_64 /usr/local/bin/nerdctl".split(),
)
def test_a_unit_that_runs_a_container_ends_it_only_where_a_rule_says_so(program: str) -> None:
    """Seen on a booted machine: an upgrade of conmon alone restarted every Quadlet."""
    unit = Unit("shop.service", kind="notify", main_pid=10, programs=("/bin/true", program))
    assert disposed(unit) is disposed(unit, rules=()) is Disposition.DEFER
    waves = Rule("shop.service", wave=60, given=("wave",))
    assert disposed(unit, rules=(waves,)) is Disposition.DEFER, "a rule that does not say what is done about it"
    assert disposed(unit, rules=(Rule("sh*", Disposition.RESTART),)) is Disposition.RESTART
    assert disposed(unit, rules=(Rule("sh*", Disposition.NEVER),)) is Disposition.NEVER
    assert disposed(replace(unit, programs=("/usr/sbin/podmand", "/opt/docker/bin/x"))) is Disposition.RESTART


def test_the_keepers_that_containerd_leaves_running_send_people_to_the_containers() -> None:
    """Recorded on bookworm after an upgrade of containerd, which its package itself restarted."""
    containerd = Unit("containerd.service", kind="notify", main_pid=3987, kill_mode="process")
    shim = StaleProcess(1173, MASTER.start, "/usr/bin/containerd-shim-runc-v2", "containerd-shim", 0, ())
    disposition, reason = dispose(containerd, (shim,), SHIPPED, Confidence.CERTAIN, False, ())
    assert disposition is Disposition.LEFTOVER and reason.endswith("restart the containers")
    assert "KillMode=process" in dispose(containerd, (shim, WORKER), SHIPPED, Confidence.CERTAIN, False, ())[1]
    both = (shim, replace(shim, pid=3987, exe="/usr/bin/containerd"))
    assert disposed(containerd, both) is Disposition.DEFER


def test_what_docker_restarts_with_it_is_told() -> None:
    """Tried: `systemctl restart docker` ends every container, and containerd's ends none."""
    assert "live-restore" in rule_for("docker.service", SHIPPED).why


def test_the_bus_waits_for_a_reboot_and_the_way_in_comes_last() -> None:
    assert disposed(Unit("dbus.service")) is Disposition.REBOOT
    waves = [rule_for(f"{name}.service", SHIPPED).wave for name in ("systemd-journald", "nginx", "ssh")]
    assert waves == [10, 50, 90]


def test_every_shipped_exception_says_why() -> None:
    assert [rule.pattern for rule in SHIPPED if rule.disposition is not Disposition.RESTART and not rule.why] == []


THEIRS = Unit("user@1000.service/mail.service", kind="service", invocation="77")
ALLOWED = Rule("user@*.service/*", Disposition.RESTART)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), Disposition.SESSION),
        (SHIPPED, Disposition.SESSION),
        ((Rule("*", Disposition.RESTART),), Disposition.SESSION),
        ((Rule("user@*", Disposition.RESTART),), Disposition.SESSION),
        ((Rule("*.service", Disposition.RESTART), Rule("user@*.service", Disposition.NEVER)), Disposition.SESSION),
        ((ALLOWED,), Disposition.RESTART),
        ((ALLOWED, Rule("*", Disposition.NEVER)), Disposition.RESTART),
        ((Rule("user@1000.service/mail.service", Disposition.RESTART),), Disposition.RESTART),
        ((Rule("*/mail.service", Disposition.RESTART),), Disposition.RESTART),
        ((Rule("user@1001.service/*", Disposition.RESTART),), Disposition.SESSION),
        ((ALLOWED, Rule("user@*.service/mail.service", Disposition.DEFER)), Disposition.DEFER),
        ((ALLOWED, Rule("user@1000.service/*", Disposition.NEVER)), Disposition.NEVER),
        ((Rule("user@*.service/*", wave=3, given=("wave",)),), Disposition.SESSION),
    ],
)
def test_a_users_unit_is_touched_only_where_a_rule_speaks_of_users_units(
    rules: tuple[Rule, ...], expected: Disposition
) -> None:
    assert disposed(THEIRS, rules=rules) is expected


def test_a_user_may_keep_us_waiting_for_less_long_unless_a_rule_gives_him_more() -> None:
    assert rule_for(THEIRS.name, (Rule("*", limit=300.0),)).limit == 30.0 < rule_for("mail.service", ()).limit
    assert rule_for(THEIRS.name, (Rule("user@*/*", limit=90.0, given=("limit",)),)).limit == 90.0


def test_no_rule_for_users_units_speaks_of_the_systems() -> None:
    for name in ("mail.service", "user@1000.service", "init.scope"):
        assert rule_for(name, (Rule("*/*", Disposition.NEVER), ALLOWED)).disposition is Disposition.RESTART
    assert disposed(Unit("user@1000.service", kind="notify"), rules=(ALLOWED,)) is Disposition.SESSION


@pytest.mark.parametrize("name", ["app-firefox-1.scope", "run-u7.service", "run-r0a1b.service"])
def test_what_a_user_started_by_hand_is_never_started_again(name: str) -> None:
    assert disposed(replace(THEIRS, name=f"user@1000.service/{name}"), rules=(ALLOWED,)) is Disposition.SESSION


def test_for_a_users_unit_that_may_be_restarted_the_same_holds_as_for_others() -> None:
    rules = (ALLOWED,)
    assert disposed(THEIRS, rules=rules, attempted=True) is Disposition.LEFTOVER
    assert disposed(THEIRS, rules=rules, held=("libc6",)) is Disposition.DEFER
    assert disposed(THEIRS, rules=rules, confidence=Confidence.LIKELY) is Disposition.DEFER
    assert disposed(replace(THEIRS, active="inactive"), rules=rules) is Disposition.LEFTOVER
    assert disposed(THEIRS, rules=(), attempted=True) is Disposition.SESSION
