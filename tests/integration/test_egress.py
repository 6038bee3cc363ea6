"""The predicted source of mail against the one that a receiver sees of real exim, each time something moved."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.host.network.addresses import Address, Sort
from agent.host.network.echo import Echo
from agent.host.network.egress import Egress, Way
from agent.host.network.translation import Verdict
from agent.model import contract
from tests.integration.network import OURS, SINKS, Lab, lab, watching

READ = """
import json, sys
from agent.host.network.egress import read_egress
from agent.model import contract
from agent.model.facts import Host
print(json.dumps(contract.encode(read_egress(Host(), **json.loads(sys.argv[1])))))
"""
ECHO = """
import json, sys
from agent.host.network.egress import ask_echo_as, read_egress
from agent.model import contract
from agent.model.facts import Host
way = read_egress(Host(), destinations=[sys.argv[2]]).ways[0]
print(json.dumps(contract.encode(ask_echo_as(sys.argv[1], way, sys.argv[2], "probe.example", int(sys.argv[3])))))
"""
NAME = """
import json, sys, time
from agent.host.network.hostname import ask_full_name, read_host_name
from agent.model.facts import Host
begun = time.monotonic()
full = ask_full_name(float(sys.argv[1]))
print(json.dumps([read_host_name(Host()), full, time.monotonic() - begun]))
"""
BOTH = ("v4.example", "v6.example")
RESERVE = (
    "ip addr add 203.0.113.11/24 dev m0; ip addr add 2001:db8:1::11/64 dev m0 preferred_lft 0 nodad;"
    "ip route add default via 203.0.113.1 src 203.0.113.11 table 111;"
    "ip -6 route add default via 2001:db8:1::1 src 2001:db8:1::11 table 111"
)
"""A second address of each family, which the kernel does not take of its own accord, and a table that does."""
NAT = "nft add table ip n; nft 'add chain ip n p { type nat hook postrouting priority 100; }'"
NAT6 = "nft add table ip6 n; nft 'add chain ip6 n p { type nat hook postrouting priority 100; }'"
SNAT = f"{NAT}; nft add rule ip n p tcp dport 25 snat to 203.0.113.200"


@dataclass(frozen=True)
class Move:
    """`then` is done to the sender, after `first`; mail must leave from `v4` and `v6` then."""

    name: str
    then: str
    v4: str = OURS[0]
    v6: str = OURS[1]
    first: str = ""
    flags: dict[str, str] = field(default_factory=dict)
    why: str = ""


MOVES = (
    Move("an address is added", "ip addr add 2001:db8:1::20/64 dev m0 nodad", v6="2001:db8:1::20"),
    Move("an address is deleted", "ip addr del 2001:db8:1::20/64 dev m0", first="ip addr add 2001:db8:1::20/64 dev m0"),
    Move(
        "the first of two addresses is deleted",
        "ip addr del 203.0.113.10/24 dev m0",
        v4="203.0.113.11",
        first="sysctl -qw net.ipv4.conf.m0.promote_secondaries=1; ip addr add 203.0.113.11/24 dev m0",
    ),
    Move("an address is deprecated", "ip addr change 2001:db8:1::10/64 dev m0 preferred_lft 0", first=RESERVE, v6=""),
    Move(
        "the default route gets another src",
        "ip route replace default via 203.0.113.1 src 203.0.113.11",
        v4="203.0.113.11",
        first=RESERVE,
        why="a route",
    ),
    Move(
        "the default route of IPv6 gets another src",
        "ip -6 route replace default via 2001:db8:1::1 src 2001:db8:1::11",
        v6="2001:db8:1::11",
        first=RESERVE,
        why="a route",
    ),
    Move(
        "a rule for exim's uid",
        "uid=$(id -u Debian-exim); ip rule add uidrange $uid-$uid lookup 111",
        v4="203.0.113.11",
        first=RESERVE,
        why="a routing rule",
    ),
    Move(
        "a rule of IPv6 for exim's uid",
        "uid=$(id -u Debian-exim); ip -6 rule add uidrange $uid-$uid lookup 111",
        v6="2001:db8:1::11",
        first=RESERVE,
        why="a routing rule",
    ),
    Move(
        "a rule for port 25",
        "ip rule add ipproto tcp dport 25 lookup 111",
        v4="203.0.113.11",
        first=RESERVE,
        why="a routing rule",
    ),
    Move("a rule for another port", "ip rule add ipproto tcp dport 26 lookup 111", first=RESERVE, why="a routing rule"),
    Move("a rule for another uid", "ip rule add uidrange 65534-65534 lookup 111", first=RESERVE, why="a routing rule"),
    Move("SNAT", SNAT, v4="203.0.113.200", why="the packet filter"),
    Move(
        "SNAT for exim's uid",
        f"{NAT}; nft add rule ip n p meta skuid Debian-exim snat to 203.0.113.200",
        v4="203.0.113.200",
        why="the packet filter",
    ),
    Move(
        "SNAT for somebody else",
        f"{NAT}; nft add rule ip n p ip saddr 172.17.0.0/16 masquerade;"
        "nft add rule ip n p udp dport 25 snat to 1.2.3.4;"
        "nft add rule ip n p meta skuid nobody snat to 203.0.113.200",
        why="the packet filter",
    ),
    Move(
        "masquerade",
        f"{NAT}; nft add rule ip n p oifname m0 masquerade",
        first="ip addr add 203.0.113.11/32 dev lo; ip route replace default via 203.0.113.1 src 203.0.113.11",
        why="the packet filter",
    ),
    Move(
        "SNAT of IPv6",
        f"{NAT6}; nft add rule ip6 n p tcp dport 25 snat to 2001:db8:1::200",
        v6="2001:db8:1::200",
        why="the packet filter",
    ),
    Move(
        "a temporary address",
        "sysctl -qw net.ipv6.conf.m0.use_tempaddr=2;"
        "ip addr add 2001:db8:1:0:5054:8dff:fe9b:358d/64 dev m0 mngtmpaddr valid_lft 86400 preferred_lft 14400 nodad",
        v6="",
    ),
    Move("a renamed host", "hostname host2", why="the host name"),
    Move(
        "another lease of DHCP",
        "ip addr add 203.0.113.77/24 dev m0 valid_lft 600 preferred_lft 300; ip addr del 203.0.113.10/24 dev m0;"
        "ip addr add 203.0.113.77/24 dev m0 valid_lft 600 preferred_lft 300 2>/dev/null || :;"
        "ip route replace default via 203.0.113.1",
        v4="203.0.113.77",
    ),
)


@pytest.fixture
def net() -> Iterator[Lab]:
    with lab() as made:
        yield made


def read(made: Lab, user: str = "root", **arguments: Any) -> Egress:
    arguments.setdefault("destinations", SINKS)
    return contract.decode(Egress, json.loads(made.sender.run("python3", "-c", READ, json.dumps(arguments), user=user)))


def way(made: Lab, family: int, user: str = "root", **arguments: Any) -> Way:
    (found,) = (each for each in read(made, user, **arguments).ways if each.family == family)
    return found


def neighbours(made: Lab) -> None:
    """Let the world find the addresses that the sender only pretends to have."""
    for address in ("203.0.113.200", "2001:db8:1::200"):
        made.world.run(
            "ip", "neigh", "replace", address, "lladdr", "52:54:8d:9b:35:8d", "dev", "w0", "nud", "permanent"
        )


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_a_move_is_noticed_and_the_predicted_source_is_what_the_receiver_sees(net: Lab, move: Move) -> None:
    neighbours(net)
    net.sender.sh(move.first)
    with watching(net.sender) as told:
        told.rest()
        begun = time.monotonic()
        net.sender.sh(move.then)
        first = told.next(2.0)
        assert first["at"] - begun < 2.0 and first["topic"] == "network"
        assert move.why in ", ".join([first["why"], *(line["why"] for line in told.rest())])
    predicted = {each.family: each for each in read(net).ways}
    unprivileged = {each.family: each for each in read(net, "nobody").ways}
    for domain, family, expected in zip(BOTH, (4, 6), (move.v4, move.v6), strict=True):
        peer = net.send(domain)["peer"]
        assert predicted[family].seen == (peer,)
        assert not expected or expected == peer
        assert unprivileged[family].source == predicted[family].source
        assert unprivileged[family].seen == () and "Operation not permitted" in unprivileged[family].unseen


def test_the_default_destinations_stand_for_the_internet(net: Lab) -> None:
    egress = contract.decode(Egress, json.loads(net.sender.run("python3", "-c", READ, "{}")))
    assert [(each.source, each.seen, each.interface, each.rivals) for each in egress.ways] == [
        (OURS[0], (OURS[0],), "m0", 1),
        (OURS[1], (OURS[1],), "m0", 1),
    ]
    assert egress.user == "Debian-exim" and egress.uid == int(net.sender.run("id", "-u", "Debian-exim"))


# What is said of the source


def test_a_temporary_source_says_so_and_names_its_rivals(net: Lab) -> None:
    net.sender.sh(
        "sysctl -qw net.ipv6.conf.m0.use_tempaddr=2;"
        "ip addr add 2001:db8:1:0:5054:8dff:fe9b:358d/64 dev m0 mngtmpaddr valid_lft 86400 preferred_lft 14400 nodad"
    )
    found = way(net, 6)
    assert found.address and {"temporary", "dynamic"} <= set(found.address.flags)
    assert found.rivals == 3 and found.source == net.send("v6.example")["peer"]


def test_a_leased_source_says_for_how_long(net: Lab) -> None:
    net.sender.sh("ip addr change 203.0.113.10/24 dev m0 valid_lft 600 preferred_lft 300")
    row = way(net, 4).address
    assert row and row.valid and 0 < row.valid <= 600 and row.preferred and row.preferred <= 300
    assert row.flags == ("dynamic",)


def test_without_a_route_there_is_no_source_and_a_reason(net: Lab) -> None:
    net.sender.sh("ip -6 route del default")
    found = way(net, 6)
    assert (found.source, found.seen) == ("", ()) and "Network is unreachable" in found.problem
    net.sender.sh("ip route replace blackhole 198.51.100.25")
    assert way(net, 4).problem.startswith("the kernel has no route")


# What exim's own option says


def pin(made: Lab, value: str) -> None:
    made.sender.write("/etc/exim4/exim4.conf.localmacros", f"REMOTE_SMTP_INTERFACE = {value}\n")
    made.sender.sh("update-exim4.conf")


def test_a_pinned_address_is_the_source_of_its_family_alone(net: Lab) -> None:
    net.sender.sh(RESERVE)
    pin(net, "203.0.113.11")
    found = read(net, interfaces=["203.0.113.11"])
    assert [each.pinned for each in found.ways] == ["203.0.113.11", ""]
    assert [each.seen for each in found.ways] == [(net.send(domain)["peer"],) for domain in BOTH]


def test_of_several_pinned_addresses_the_first_of_a_family_counts(net: Lab) -> None:
    net.sender.sh(RESERVE)
    pin(net, "<; 203.0.113.11 ; 2001:db8:1::11 ; 203.0.113.10")
    found = read(net, interfaces=["203.0.113.11", "2001:db8:1::11", "203.0.113.10"])
    assert [each.source for each in found.ways] == ["203.0.113.11", "2001:db8:1::11"]
    assert [each.seen for each in found.ways] == [(net.send(domain)["peer"],) for domain in BOTH]


def test_a_pinned_address_that_the_host_lost_is_told_as_exim_tells_it(net: Lab) -> None:
    pin(net, "203.0.113.99")
    found = way(net, 4, interfaces=["203.0.113.99"])
    assert found.lost and (found.source, found.seen) == ("", ())
    net.sender.run("exim4", "-odf", "user@v4.example", stdin="Subject: t\n\nx\n")
    (reason,) = (line for line in net.sender.sh("cat /var/log/exim4/mainlog").splitlines() if " == " in line)
    assert found.problem.endswith(reason.rpartition(": ")[2])


# What this host rewrites, and what it cannot know


def test_a_rule_that_is_gone_is_not_predicted_from_the_connections_that_it_left(net: Lab) -> None:
    neighbours(net)
    net.sender.sh(SNAT)
    assert net.send("v4.example")["peer"] == "203.0.113.200"
    blind = way(net, 4, "nobody").translation
    assert blind and blind.verdict is Verdict.UNKNOWN and blind.observed == ()
    net.sender.sh("nft flush chain ip n p")
    assert way(net, 4).seen == (net.send("v4.example")["peer"],) == (OURS[0],)


def test_a_rule_that_is_not_understood_makes_it_unknown_and_shows_what_was_seen(net: Lab) -> None:
    neighbours(net)
    net.sender.sh(f"{NAT}; nft add rule ip n p ct state new tcp dport 25 snat to 203.0.113.200")
    assert net.send("v4.example")["peer"] == "203.0.113.200"
    found = way(net, 4)
    assert found.translation and found.translation.verdict is Verdict.UNKNOWN and found.seen == ()
    assert found.translation.observed == ("203.0.113.200",)
    assert "table ip n" in found.unseen
    assert found.unseen.endswith("; its last connections left as 203.0.113.200")
    assert way(net, 4, public_addresses=["203.0.113.200", "2001:db8:1::10"]).seen == ("203.0.113.200",)


def test_behind_a_router_that_rewrites_the_private_source_is_unknown_until_somebody_says(net: Lab) -> None:
    net.sender.sh("ip addr add 192.168.7.2/24 dev m0; ip route replace default via 203.0.113.1 src 192.168.7.2")
    net.world.sh(
        f"ip addr add 192.168.7.1/24 dev w0; {NAT};"
        "nft 'add chain ip n i { type nat hook input priority 100; }';"
        "nft add rule ip n i tcp dport 25 snat to 203.0.113.1"
    )
    found = way(net, 4)
    assert (found.source, found.sort, found.seen) == ("192.168.7.2", Sort.PRIVATE, ())
    assert net.send("v4.example")["peer"] == "203.0.113.1"
    said = ask(net, "Debian-exim", SINKS[0])
    assert way(net, 4, public_addresses=[said.seen]).seen == ("203.0.113.1",)


# The echo


def ask(made: Lab, user: str, server: str, port: int = 25) -> Echo:
    return contract.decode(Echo, json.loads(made.sender.run("python3", "-c", ECHO, user, server, str(port))))


def test_a_real_exim_tells_which_address_it_sees(net: Lab) -> None:
    neighbours(net)
    net.world.sh("exim4 -bd -oP /run/exim4/echo.pid -oX '<; [198.51.100.25]:2525 ; [2001:db8:2::25]:2525'")
    net.sender.sh(f"{NAT}; nft add rule ip n p tcp dport 2525 snat to 203.0.113.200")
    assert ask(net, "Debian-exim", SINKS[0], 2525) == Echo("203.0.113.200")
    assert ask(net, "Debian-exim", SINKS[1], 2525) == Echo(OURS[1])


def test_it_is_asked_as_exims_user_for_rules_may_be_for_him_alone(net: Lab) -> None:
    neighbours(net)
    net.sender.sh(f"{NAT}; nft add rule ip n p meta skuid Debian-exim snat to 203.0.113.200")
    assert ask(net, "root", SINKS[0]).seen == OURS[0]
    assert ask(net, "Debian-exim", SINKS[0]).seen == net.send("v4.example")["peer"] == "203.0.113.200"


def test_where_nobody_listens_there_is_a_reason_and_no_address(net: Lab) -> None:
    answer = ask(net, "Debian-exim", SINKS[0], 2526)
    assert answer.seen == "" and "refused" in answer.problem


# The host name


def name(made: Lab, limit: float = 5.0) -> tuple[str, str, float]:
    short, full, took = json.loads(made.sender.run("python3", "-c", NAME, str(limit)))
    return short, full, took


def test_the_full_name_is_what_hostname_says(net: Lab) -> None:
    assert name(net)[:2] == ("host1", "host1.example.org")
    net.sender.sh("hostname host2")
    assert name(net)[:2] == ("host2", "")


def test_a_name_server_that_never_answers_costs_the_limit_and_no_more(net: Lab) -> None:
    net.world.sh("nft add table ip f; nft 'add chain ip f i { type filter hook input priority 0; }'")
    net.world.sh("nft add rule ip f i udp dport 53 drop; nft add rule ip f i tcp dport 53 drop")
    net.sender.write("/etc/resolv.conf", "nameserver 198.51.100.25\noptions timeout:30\n")
    net.sender.sh("hostname host2")
    _, full, took = name(net, 1.0)
    assert full == "" and 0.9 < took < 3


def test_the_addresses_of_the_sender_are_told_with_their_flags(net: Lab) -> None:
    net.sender.sh("ip addr add 2001:db8:1::30/64 dev m0 preferred_lft 0")
    rows = {row.address: row for row in read(net).addresses}
    assert rows["127.0.0.1"] == Address("127.0.0.1", 8, "lo", "host", (), None, None)
    assert rows["2001:db8:1::30"].flags == ("deprecated", "dynamic") or rows["2001:db8:1::30"].flags == ("deprecated",)
    assert not rows["2001:db8:1::30"].preferable and rows[OURS[1]].preferable
