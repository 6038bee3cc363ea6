"""The kernel's wake-ups: what wakes, what does not, and that waiting costs nothing."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.errors import AgentError, Kind
from agent.model.events import Touched
from agent.sources import kernel
from agent.sources.kernel import KernelWatch
from tests.integration.network import Lab, Lines, Machine, lab, watching

ADVERTISE = """
import socket, struct, sys
index = socket.if_nametoindex("w0")
prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:7::")
option = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 86400, 14400, 0, prefix)
sending = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
sending.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option, ("ff02::1", 0, 0, index))
"""
JOIN = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).bind((0, 64))"


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine("host1") as made:
        made.sh("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1")
        made.sh(
            "ip link add d0 type veth peer name d9; ip link set d9 up;ip link set d0 up; ip addr add 10.9.8.7/24 dev d0"
        )
        time.sleep(0.2)
        yield made


@pytest.fixture
def net() -> Iterator[Lab]:
    with lab() as made:
        yield made


def whys(told: Lines) -> list[str]:
    """What was told since, once it is silent."""
    return [line["why"] for line in told.rest()]


def after(machine: Machine, told: Lines, script: str) -> list[str]:
    """What is told of a script that runs in `machine`."""
    told.rest()
    machine.sh(script)
    return whys(told)


def while_it_sleeps(machine: Machine, told: Lines, script: str) -> list[str]:
    """What is told of a script that runs while the watching process is stopped."""
    told.rest()
    os.kill(told.pid, signal.SIGSTOP)
    try:
        machine.sh(script)
    finally:
        os.kill(told.pid, signal.SIGCONT)
    return whys(told)


# What wakes


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("ip addr add 10.9.8.8/24 dev d0", "an address"),
        ("ip addr add fd00::1/64 dev d0 nodad", "an address"),
        ("ip addr del 10.9.8.7/24 dev d0", "an address"),
        ("ip addr change 10.9.8.7/24 dev d0 valid_lft 60 preferred_lft 30", "an address"),
        ("ip route add default via 10.9.8.1", "a route"),
        ("ip -6 route add default dev d0", "a route"),
        ("ip rule add uidrange 1-1 lookup 7", "a routing rule"),
        ("ip -6 rule add ipproto tcp dport 25 lookup 7", "a routing rule"),
        ("ip rule del lookup main; ip rule add lookup main prio 32766", "a routing rule"),
        ("ip link set d0 down", "a link"),
        ("ip link set d0 down; ip link set d0 name d1; ip link set d1 up", "a link"),
        ("ip link add d2 type veth peer name d3", "a link"),
        ("hostname host2", "the host name"),
        ("nft add table ip n", "the packet filter"),
    ],
)
def test_what_may_move_mail_wakes(machine: Machine, script: str, why: str) -> None:
    with watching(machine) as told:
        told.rest()
        machine.sh(script)
        assert why in ", ".join([told.next()["why"], *whys(told)]).split(", ")


def test_it_is_noticed_at_once(machine: Machine) -> None:
    with watching(machine) as told:
        begun = time.monotonic()
        machine.sh("ip addr add 10.9.8.8/24 dev d0")
        assert told.next(2.0)["at"] - begun < 1.0


def test_a_burst_is_told_once(machine: Machine) -> None:
    with watching(machine) as told:
        script = "for n in $(seq 20); do ip addr add 10.9.7.$n/32 dev d0; done; ip rule add uidrange 1-1 lookup 7"
        assert len(while_it_sleeps(machine, told, f"{script}; hostname host2")) == 1


def test_lost_messages_are_told_and_the_watch_goes_on(machine: Machine) -> None:
    with watching(machine) as told:
        script = "for n in $(seq 250) $(seq 250); do for m in 1 2; do echo addr add 10.9.$m.$n/32 dev d0; done; done"
        lost = while_it_sleeps(machine, told, f"{script} | ip -force -batch - 2>/dev/null || :")
        assert "messages of the kernel were lost" in lost[0] and len(lost) < 5
        assert after(machine, told, "ip addr add 10.9.8.9/24 dev d0")


# What does not wake


def test_neighbours_come_and_go_unnoticed(machine: Machine) -> None:
    with watching(machine) as told:
        script = "for n in $(seq 50); do ip neigh replace 10.9.8.9 lladdr 02:00:00:00:00:$(printf %02x $n) dev d0; done"
        assert after(machine, told, f"{script}; ip neigh del 10.9.8.9 dev d0") == []


def test_a_router_that_advertises_the_same_again_and_again_wakes_once(net: Lab) -> None:
    net.sender.sh("sysctl -qw net.ipv6.conf.m0.accept_ra=1 net.ipv6.conf.m0.autoconf=1")
    net.world.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    with watching(net.sender) as told:
        told.rest()
        net.world.run("python3", "-c", ADVERTISE)
        assert whys(told) != []
        for _ in range(3):
            net.world.run("python3", "-c", ADVERTISE)
        assert whys(told) == []
        assert "2001:db8:7:0:5054:8dff:fe9b:358d" in net.sender.sh("ip -6 addr show dev m0")


def test_who_listens_to_all_that_passes_and_what_a_bridge_says_of_its_ports_is_no_news(machine: Machine) -> None:
    machine.sh("ip link add b0 type bridge; ip link set d0 master b0; ip link set b0 up")
    with watching(machine) as told:
        machine.sh("ip link set d0 promisc on; ip link set b0 promisc on; ip link set d0 promisc off")
        told.rest()
        assert after(machine, told, "ip link set d0 promisc on; ip link set b0 promisc off") == []
        assert after(machine, told, "bridge link set dev d0 cost 50; bridge link set dev d0 cost 60") == []
        assert after(machine, told, "ip link set d0 down") != []


def test_another_machine_on_this_kernel_that_is_renamed_is_no_news(machine: Machine) -> None:
    with watching(machine) as told:
        assert after(machine, told, "unshare --uts hostname elsewhere") == []
        assert after(machine, told, "hostname host1") == []
        assert after(machine, told, "hostname host2") == ["the host name"]


def test_what_is_put_into_a_set_is_no_news(machine: Machine) -> None:
    machine.sh("nft add table ip n; nft 'add set ip n banned { type ipv4_addr; }'")
    with watching(machine) as told:
        assert after(machine, told, "nft 'add element ip n banned { 10.0.0.1 }'") == []
        assert after(machine, told, "nft 'add chain ip n p'") == ["the packet filter"]


def woken(told: Lines, times: int) -> list[int]:
    """How often it was woken in each of the next few seconds; its own clock wakes it once."""
    return [told.next()["switches"] for _ in range(times)]


@pytest.mark.parametrize("before", [":", "hostname host2; ip addr add 10.9.8.8/24 dev d0; nft add table ip n"])
def test_waiting_costs_nothing(machine: Machine, before: str) -> None:
    with watching(machine, every=0.5) as told:
        machine.sh(before)
        time.sleep(1.2)
        told.rest(0)
        assert sorted(woken(told, 5))[:3] == [1, 1, 1]


# Rights


def test_the_rules_of_nftables_need_a_socket_that_somebody_with_rights_opened(machine: Machine) -> None:
    machine.run("python3", "-c", JOIN)
    with pytest.raises(AssertionError, match="PermissionError"):
        machine.run("python3", "-c", JOIN, user="nobody")
    with watching(machine, rules=False) as told:
        assert after(machine, told, "nft add table ip n") == []
        assert after(machine, told, "ip addr add 10.9.8.8/24 dev d0") != []


def test_it_works_where_the_tunables_of_the_kernel_are_read_only(machine: Machine) -> None:
    machine.sh(
        "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; ! echo x >/proc/sys/kernel/hostname"
    )
    with watching(machine) as told:
        assert after(machine, told, "hostname host2") == ["the host name"]


# Beginning and end


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_was_opened_is_closed_again_and_closing_twice_does_no_harm() -> None:
    loop = asyncio.new_event_loop()
    told: list[Touched] = []
    watch = KernelWatch(told.append)
    before = descriptors()
    assert watch.drain() is False
    watch.start(loop)
    assert descriptors() > before
    watch.close()
    watch.close()
    assert descriptors() == before and watch.drain() is False
    loop.close()


def test_a_kernel_that_refuses_is_told_and_nothing_stays_open(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "HOST_NAME", str(tmp_path / "missing"))
    loop = asyncio.new_event_loop()
    before = descriptors()
    with pytest.raises(AgentError) as raised:
        KernelWatch(lambda touched: None).start(loop)
    assert raised.value.kind is Kind.UNREADABLE and descriptors() == before
    loop.close()
