"""Containers, guests and the like by the names that people know them by."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.checks.libraries.ownership import find_command, find_owner, place
from agent.host.containers import (
    DOCKER,
    KEPT,
    LISTS,
    LXC,
    PODMAN,
    is_lxc,
    read_chroot,
    read_container_name,
    read_keeper,
)
from agent.model.facts import Host, Process, Unit
from agent.model.restarts import Disposition
from agent.stale.owners import CONTAINERS, WORDS, Owner, group_of, owner_of, restart_words, unescape
from tests.unit.small_root import booted, put

ID = "4c01db0b339c8d29c0c1a1b0f1f8b3d3a9a7f4a1c2b3d4e5f60718293a4b5c6d"


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (f"docker-{ID}.scope", "docker container 4c01db0b339c"),
        (f"libpod-{ID}.scope", "podman container 4c01db0b339c"),
        (f"libpod-conmon-{ID}.scope", "podman container 4c01db0b339c"),
        (f"crio-{ID}.scope", "Kubernetes container 4c01db0b339c"),
        (f"cri-containerd-{ID}.scope", "Kubernetes container 4c01db0b339c"),
        (r"machine-qemu\x2d1\x2dweb\x2d01.scope", "virtual machine web-01"),
        (r"machine-lxc\x2d4711\x2dmail.scope", "LXC container mail"),
        ("machine-trixie.scope", "container or machine trixie"),
        ("systemd-nspawn@build.service", "container or machine build"),
        ("lxc@web1.service", "LXC container web1"),
        ("snap.lxd.daemon.service", "snap lxd"),
        ("snap.firefox.firefox-1f2e.scope", "snap firefox"),
        ("nginx.service", None),
        ("docker.service", None),
        ("docker-0123.scope", None),
        ("containerd.service", None),
        ("snapd.service", None),
        ("session-3.scope", None),
        ("libvirtd.service", None),
    ],
)
def test_the_unit_that_systemd_names_tells_whose_it_is(unit: str, text: str | None) -> None:
    found = owner_of(Unit(unit, control_group=f"/system.slice/{unit}"), f"/system.slice/{unit}")
    assert (found.text if found else None) == text


def test_a_guest_of_proxmox_is_known_by_its_slice() -> None:
    unit = Unit("101.scope", control_group="/qemu.slice/101.scope")
    assert owner_of(unit, "/qemu.slice/101.scope") == Owner("qemu", name="101")
    assert owner_of(Unit("101.scope", control_group="/system.slice/101.scope"), "") is None


@pytest.mark.parametrize(
    ("cgroup", "text"),
    [
        (f"/docker/{ID}", "docker container 4c01db0b339c"),
        (f"/docker/{ID}/system.slice/ssh.service", "docker container 4c01db0b339c"),
        (f"/kubepods/besteffort/pod1b2c/{ID}", "Kubernetes container 4c01db0b339c"),
        ("/lxc.payload.web1", "LXC container web1"),
        ("/lxc.payload.web1/system.slice/nginx.service", "LXC container web1"),
        ("/lxc.monitor.web1", "LXC container web1"),
        ("/lxc/web1/init.scope", "LXC container web1"),
        (f"/libpod_parent/libpod-{ID}", "podman container 4c01db0b339c"),
        ("/machine/qemu-3-db.libvirt-qemu/emulator", "virtual machine db"),
        ("/", None),
        ("", None),
        (f"/user/docker/{ID}", None),
        ("/x/lxc.payload.web1", None),
    ],
)
def test_a_control_group_above_which_there_is_no_unit_is_roots_own(cgroup: str, text: str | None) -> None:
    found = owner_of(None, cgroup)
    assert (found.text if found else None) == text


@pytest.mark.parametrize(
    ("below", "text"),
    [
        ("app.slice/app-flatpak-org.mozilla.firefox-4711.scope", "flatpak org.mozilla.firefox, by its own account"),
        (f"user.slice/libpod-{ID}.scope/container", "podman container 4c01db0b339c, by its own account"),
        ("app.slice/snap.code.code-1f.scope", "snap code, by its own account"),
        ("app.slice/dbus.service", None),
    ],
)
def test_below_a_users_manager_names_are_the_users_own_word(below: str, text: str | None) -> None:
    manager = Unit("user@1000.service", control_group="/user.slice/user-1000.slice/user@1000.service")
    found = owner_of(manager, f"{manager.control_group}/{below}")
    assert (found.text if found else None) == text


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("app.slice/app-flatpak-org.gnome.Maps-7.scope", "flatpak org.gnome.Maps, by its own account"),
        (f"app.slice/web.service/libpod-{ID}.scope", "podman container 4c01db0b339c, by its own account"),
        ("app.slice/mail.service", "user 1000"),
        ("app.slice/mail.service/user@0.service/x", "user 1000"),
    ],
)
def test_a_users_unit_is_that_users(group: str, text: str) -> None:
    top = "/user.slice/user-1000.slice/user@1000.service"
    name = next(part for part in group.split("/") if not part.endswith(".slice"))
    unit = Unit(f"user@1000.service/{name}", control_group=f"{top}/{group.partition(name)[0]}{name}")
    found = owner_of(unit, f"{top}/{group}")
    assert found and found.text == text


# Recorded on booted machines: podman 4.3 and 5.4, docker 20.10 and 26.1, LXC 5.0 and 6.0, systemd 252 and 257

WEB = "4303d220691217962ab1c14c195121562fec5458f4b29ae82f88940076eef295"
GONE = "55219013cacde4a3fadbcbfd1ac7109fd24899b4f178332364b3ed348149720e"
QUAD = "0bfb35fb45096088e955aa4e8f7bc795380cc1c3e0a45a8cefc43dd0d92dd4e9"
DWEB = "ab0d68010f450f9509e5ca34362ada4567de0e0f539c7bb663560cee56f55d5a"
CGFS = "545279310bcdb78f80583ac01998e127e9fd2ab30f494c7d256a5c847a895499"
THEIRS = "137e8281ed46cb7b6c2ccfc8225195011fe04772fd300da400d3d9eecd465335"
ALICE = "/user.slice/user-1000.slice/user@1000.service"
PAYLOAD = f"/system.slice/quad.service/libpod-payload-{QUAD}"
SPLIT = Unit("quad.service", control_group="/system.slice/quad.service", programs=("/usr/bin/podman",), main_pid=1329)


@pytest.mark.parametrize(
    ("unit", "cgroup", "text"),
    [
        (f"libpod-{WEB}.scope", f"/machine.slice/libpod-{WEB}.scope", "podman container 4303d2206912"),
        (f"libpod-conmon-{WEB}.scope", f"/machine.slice/libpod-conmon-{WEB}.scope", "podman container 4303d2206912"),
        (f"docker-{DWEB}.scope", f"/system.slice/docker-{DWEB}.scope", "docker container ab0d68010f45"),
        ("machine-nest.scope", "/machine.slice/machine-nest.scope/payload", "container or machine nest"),
        (
            "systemd-nspawn@my-box.service",
            "/machine.slice/systemd-nspawn@my-box.service/supervisor",
            "container or machine my-box",
        ),
        ("containerd.service", "/system.slice/containerd.service", None),
        ("docker.service", "/system.slice/docker.service", None),
        ("gen.service", "/system.slice/gen.service", None),
        (
            f"user@1000.service/libpod-{THEIRS}.scope",
            f"{ALICE}/user.slice/libpod-{THEIRS}.scope",
            "podman container 137e8281ed46, by its own account",
        ),
        (
            "user@1000.service/podman-pause-fe7539d8.scope",
            f"{ALICE}/user.slice/podman-pause-fe7539d8.scope",
            "user 1000",
        ),
    ],
)
def test_what_debians_engines_make_is_known_as_theirs(unit: str, cgroup: str, text: str | None) -> None:
    group = cgroup.removesuffix("/payload").removesuffix("/supervisor")
    found = owner_of(Unit(unit, control_group=group), cgroup)
    assert (found.text if found else None) == text


@pytest.mark.parametrize(
    ("cgroup", "group", "text"),
    [
        ("/lxc.payload.box", "/lxc.payload.box", "LXC container box"),
        ("/lxc.payload.sbox/init", "/lxc.payload.sbox", "LXC container sbox"),
        ("/lxc.monitor.box", "/lxc.monitor.box", "LXC container box"),
        (f"/libpod_parent/libpod-{CGFS}", f"/libpod_parent/libpod-{CGFS}", "podman container 545279310bcd"),
        ("/system.slice/x", "", None),
        ("/lxc.payloads", "", None),
    ],
)
def test_engines_that_go_past_systemd_make_one_group_for_each_container(
    cgroup: str, group: str, text: str | None
) -> None:
    found = owner_of(None, cgroup)
    assert (found.text if found else None) == text
    assert group_of(cgroup) == group


def test_a_quadlets_container_is_told_and_only_podman_is_believed() -> None:
    found = owner_of(SPLIT, PAYLOAD)
    assert found == Owner("podman", QUAD)
    assert owner_of(SPLIT, "/system.slice/quad.service/runtime") is None
    assert owner_of(SPLIT, f"/system.slice/quad.service/x/libpod-payload-{QUAD}") is None
    assert owner_of(replace(SPLIT, programs=("/usr/bin/podman2",)), PAYLOAD) is None


# How they are restarted


def words(owner: Owner, *units: Unit, keeper: int = 0) -> str:
    unit = units[0] if units else None
    return " ".join(restart_words(owner, unit, {one.name: one for one in units}, keeper))


def test_a_container_is_restarted_by_its_engine_under_its_name() -> None:
    """Each was tried: what runs afterwards is the host's new file."""
    assert words(Owner("docker", DWEB, "dweb")) == "docker restart dweb"
    assert words(Owner("podman", WEB, "web"), keeper=1161) == "podman restart web"
    assert words(Owner("podman", WEB)) == "podman restart 4303d2206912"
    assert words(Owner("lxc", name="box")) == "lxc-stop --reboot --name box"
    assert words(Owner("machine", name="nest"), Unit("machine-nest.scope")) == "machinectl reboot nest"
    assert words(Owner("qemu", name="vm")) == words(Owner("kubernetes", WEB)) == words(Owner("user", uid=1000)) == ""


def test_what_a_unit_keeps_is_restarted_by_that_unit() -> None:
    """`podman restart` of such a container made its unit remove it."""
    gen = Unit("gen.service", main_pid=1319)
    scope = Unit(f"libpod-{WEB}.scope")
    assert words(Owner("podman", WEB, "gen"), scope, gen, keeper=1319) == "systemctl restart gen.service"
    assert words(Owner("podman", WEB, "gen"), scope, gen, keeper=1320) == "podman restart gen"
    assert words(Owner("podman", WEB, "gen"), scope, replace(gen, main_pid=0)) == "podman restart gen"
    claims = Unit("user@1000.service/gen.service", main_pid=1319)
    assert words(Owner("podman", WEB, "gen"), scope, claims, keeper=1319) == "podman restart gen"
    nspawn = Unit("systemd-nspawn@my-box.service")
    assert words(Owner("machine", name="my-box"), nspawn) == "systemctl restart systemd-nspawn@my-box.service"
    lxc = Unit("lxc@sbox.service")
    assert words(Owner("lxc", name="sbox"), lxc) == "systemctl restart lxc@sbox.service"
    assert words(Owner("lxc", name="sbox"), replace(lxc, active="inactive")).startswith("lxc-stop")


def test_nothing_but_an_id_is_taken_over_from_what_a_user_claims() -> None:
    """Root would run the command: no name that a user chose may be in it, and no tool that is root's."""
    scope = Unit(f"user@1000.service/libpod-{THEIRS}.scope")
    conmon = Unit(f"user@1000.service/libpod-conmon-{THEIRS}.scope")
    theirs = Owner("podman", THEIRS, own_word=True)
    assert words(theirs, scope, conmon) == "podman restart 137e8281ed46"
    assert words(theirs, scope) == "", "a unit of his may keep it"
    assert words(theirs, replace(scope, name=f"user@1001.service/libpod-{THEIRS}.scope"), conmon) == ""
    for kind in WORDS.keys() - {"podman"}:
        assert words(Owner(kind, THEIRS, "db", own_word=True), scope, conmon) == ""


def test_below_a_system_service_no_name_counts() -> None:
    unit = Unit("app.service", control_group="/system.slice/app.service")
    assert owner_of(unit, f"/system.slice/app.service/docker-{ID}.scope") is None


def test_every_kind_has_words() -> None:
    assert CONTAINERS < WORDS.keys()
    assert Owner("docker", ID, "web").text == "docker container web (4c01db0b339c)"
    assert unescape(r"a\x2db\x2fc\x2") == r"a-b/c\x2"


# Names


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return booted(tmp_path)


def keep_docker(host: Host, name: object, mode: int = 0o600) -> None:
    path = f"{DOCKER}/{ID}/config.v2.json"
    put(host, path, json.dumps({"State": {"Running": True, "Pid": 4711}, "ID": ID, "Name": name}))
    os.chmod(host.under(path), mode)


def test_dockers_own_file_tells_the_name(host: Host) -> None:
    assert read_container_name(host, "docker", ID) == ""
    keep_docker(host, "/shop-web-1")
    assert read_container_name(host, "docker", ID) == "shop-web-1"
    assert read_container_name(host, "kubernetes", ID) == read_container_name(host, "docker", "../../etc") == ""


def test_podmans_own_file_tells_the_name(host: Host) -> None:
    rows = [{"id": "0" * 64, "names": ["other"]}, {"id": ID, "names": ["db"], "layer": "x"}]
    put(host, f"{PODMAN}/{LISTS[0]}", json.dumps(rows))
    assert read_container_name(host, "podman", ID) == "db"
    assert read_container_name(host, "podman", "1" * 64) == ""


def test_what_podman_5_keeps_of_containers_that_go_with_their_end_is_read_as_well(host: Host) -> None:
    """Recorded: `podman run --rm`, and so each Quadlet, is in a list of its own."""
    gone = {"id": GONE, "names": ["gone"], "flags": {"MountLabel": "", "ProcessLabel": "", "Volatile": True}}
    put(host, f"{PODMAN}/volatile-containers.json", json.dumps([gone]))
    assert read_container_name(host, "podman", GONE) == "gone"
    put(host, f"{PODMAN}/containers.json", json.dumps([{"id": WEB, "names": ["web"], "flags": {}}]))
    assert [read_container_name(host, "podman", id) for id in (WEB, GONE, CGFS)] == ["web", "gone", ""]


def test_the_keeper_of_a_container_is_read_from_podmans_own_file(host: Host) -> None:
    path = f"{KEPT}/{WEB}/userdata/conmon.pid"
    assert read_keeper(host, WEB) == 0
    put(host, path, "1161")
    assert read_keeper(host, WEB) == 1161
    put(host, f"{KEPT}/../web/userdata/conmon.pid", "7")
    assert read_keeper(host, "../web") == 0
    os.chmod(host.under(path), 0o666)
    assert read_keeper(host, WEB) == 0
    put(host, path, "\xff")
    assert read_keeper(host, WEB) == 0


def test_a_container_is_lxcs_where_lxc_keeps_its_configuration(host: Host) -> None:
    put(host, f"{LXC}/box/config", "lxc.uts.name = box\n")
    put(host, "/var/lib/config", "")
    assert is_lxc(host, "box")
    assert not is_lxc(host, "web") and not is_lxc(host, "..")


@pytest.mark.parametrize("name", ["/a b", "/\x1b[2J", "/" + "x" * 200, "", 7, None, ["web"], "/$(id)"])
def test_a_name_that_docker_would_not_give_is_none(host: Host, name: object) -> None:
    keep_docker(host, name)
    assert read_container_name(host, "docker", ID) == ""


def test_a_file_that_others_may_write_or_a_link_is_not_believed(host: Host, tmp_path: Path) -> None:
    keep_docker(host, "/web", mode=0o666)
    assert read_container_name(host, "docker", ID) == ""
    path = Path(host.under(f"{DOCKER}/{ID}/config.v2.json"))
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert read_container_name(host, "docker", ID) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Name": {}}', "[" * 100_000, "\xff"])
def test_a_broken_file_tells_nothing(host: Host, text: str) -> None:
    put(host, f"{DOCKER}/{ID}/config.v2.json", text)
    put(host, f"{PODMAN}/{LISTS[0]}", text)
    assert read_container_name(host, "docker", ID) == read_container_name(host, "podman", ID) == ""


def test_a_chroot_is_where_the_root_of_a_process_leads(host: Host) -> None:
    put(Host("/"), f"{host.proc}/7/comm", "x")
    os.symlink("/var/spool/postfix", f"{host.proc}/7/root")
    put(Host("/"), f"{host.proc}/8/comm", "x")
    os.symlink("/", f"{host.proc}/8/root")
    assert [read_chroot(host, pid) for pid in (7, 8, 9)] == ["/var/spool/postfix", "", ""]


# Put together


def process(pid: int, cgroup: str) -> Process:
    return Process(pid, datetime(2026, 11, 22, tzinfo=UTC), 0, "/usr/sbin/demod", "demod", cgroup)


def test_a_reason_begins_with_the_containers_name(host: Host) -> None:
    keep_docker(host, "/web")
    unit = Unit(f"docker-{ID}.scope", control_group=f"/system.slice/docker-{ID}.scope")
    inside = process(7, unit.control_group)
    found = place(host, unit, [inside], Disposition.NEVER, "restart it")
    assert found == (Disposition.NEVER, "docker container web (4c01db0b339c): restart it")
    assert find_owner(host, Unit("nginx.service"), process(7, "/system.slice/nginx.service")) is None


def test_a_container_is_told_once_to_be_the_business_of_its_tool(host: Host) -> None:
    unit = Unit(f"docker-{ID}.scope", control_group=f"/system.slice/docker-{ID}.scope")
    found = place(host, unit, [process(7, unit.control_group)], Disposition.CONTAINER, "a container or machine: x")
    assert found == (Disposition.CONTAINER, "docker container 4c01db0b339c: restart it with the tool that runs it")


def test_the_command_for_root_is_made_of_what_root_knows(host: Host) -> None:
    scope = Unit(f"libpod-{WEB}.scope", control_group=f"/machine.slice/libpod-{WEB}.scope")
    gen = Unit("gen.service", main_pid=1319)
    inside = process(7, scope.control_group)
    put(host, f"{PODMAN}/containers.json", json.dumps([{"id": WEB, "names": ["web"]}]))
    assert find_command(host, scope, inside, {}) == "podman restart web"
    put(host, f"{KEPT}/{WEB}/userdata/conmon.pid", "1319")
    assert find_command(host, scope, inside, {gen.name: gen}) == "systemctl restart gen.service"
    assert find_command(host, None, process(7, "/lxc.payload.box"), {}) == ""
    put(host, f"{LXC}/box/config", "")
    assert find_command(host, None, process(7, "/lxc.payload.box"), {}) == "lxc-stop --reboot --name box"
    assert find_command(host, gen, process(7, "/system.slice/gen.service"), {}) == ""


def test_a_users_container_is_restarted_as_that_user_and_what_he_claims_is_no_command(host: Host) -> None:
    scope = Unit(f"user@1000.service/libpod-{THEIRS}.scope", control_group=f"{ALICE}/user.slice/libpod-{THEIRS}.scope")
    conmon = f"user@1000.service/libpod-conmon-{THEIRS}.scope"
    command = find_command(host, scope, process(7, scope.control_group), {conmon: Unit(conmon)})
    assert command == (
        "systemd-run --pipe --quiet --uid=1000 --setenv=XDG_RUNTIME_DIR=/run/user/1000 podman restart 137e8281ed46"
    )
    manager = Unit("user@1000.service", control_group=ALICE)
    for claimed in ("machine-x.scope", f"docker-{ID}.scope", "machine-lxc-1-box.scope"):
        assert find_command(host, manager, process(7, f"{ALICE}/{claimed}"), {}) == ""


def test_a_container_beside_systemds_units_is_a_container(host: Host) -> None:
    keep_docker(host, "/web")
    found = place(host, None, [process(7, f"/docker/{ID}")], Disposition.NEVER, "belongs to no unit")
    assert found == (
        Disposition.CONTAINER,
        "docker container web (4c01db0b339c): restart it with the tool that runs it",
    )
    assert place(host, None, [process(7, "/x")], Disposition.NEVER, "no unit") == (Disposition.NEVER, "no unit")


def test_a_users_unit_is_told_with_the_users_name(host: Host) -> None:
    put(host, "/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    group = "/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service"
    unit = Unit("user@1000.service/mail.service", control_group=group)
    told = (Disposition.SESSION, "user alice: x")
    assert place(host, unit, [process(7, group)], Disposition.SESSION, "x") == told
    nameless = Unit("user@1001.service/mail.service", control_group=group)
    assert place(host, nameless, [process(7, group)], Disposition.SESSION, "x")[1] == "user 1001: x"


def test_the_container_of_a_user_is_not_looked_up_among_roots(host: Host) -> None:
    keep_docker(host, "/web")
    manager = Unit("user@1000.service", control_group="/user.slice/user-1000.slice/user@1000.service")
    found = find_owner(host, manager, process(7, f"{manager.control_group}/docker-{ID}.scope"))
    assert found and found.own_word and found.name == ""


def test_a_reason_tells_where_a_process_is_locked_in(host: Host) -> None:
    for pid, root in ((7, "/var/spool/postfix"), (8, "/"), (9, "/var/lib/named")):
        put(Host("/"), f"{host.proc}/{pid}/comm", "x")
        os.symlink(root, f"{host.proc}/{pid}/root")
    unit = Unit("postfix@-.service")

    def reason(*pids: int) -> str:
        some = [process(pid, "/system.slice/postfix@-.service") for pid in pids]
        return place(host, unit, some, Disposition.RESTART, "x")[1]

    assert reason(7, 8) == "locked into /var/spool/postfix: x"
    assert reason(7, 8, 9) == "locked into /var/lib/named and elsewhere: x"
    assert reason(8) == "x"
