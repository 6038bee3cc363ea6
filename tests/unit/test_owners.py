"""Containers, guests and the like by the names that people know them by."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.checks.libraries.ownership import find_owner, place
from agent.host.containers import DOCKER, PODMAN, read_chroot, read_container_name
from agent.model.facts import Host, Process, Unit
from agent.model.restarts import Disposition
from agent.stale.owners import CONTAINERS, WORDS, Owner, owner_of, unescape
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
    put(host, PODMAN, json.dumps(rows))
    assert read_container_name(host, "podman", ID) == "db"
    assert read_container_name(host, "podman", "1" * 64) == ""


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
    put(host, PODMAN, text)
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
