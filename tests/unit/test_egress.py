"""Where mail leaves from, judged on what `ip -j` and `nft -j` really printed, and on servers that answer at will."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.host.network import egress
from agent.host.network.addresses import Address, Sort, family_of, parse_addresses, rivals, sort_of
from agent.host.network.echo import Echo, ask_echo, parse_echo
from agent.host.network.egress import choose_interface, route_question, what_is_seen
from agent.host.network.nftables import Flow, Rewrite, judge_rules, parse_rules
from agent.host.network.translation import Translation, Verdict, has_no_translator, read_observed, read_translation
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from tests.unit.small_root import put

SHOWN = """[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"addr_info":[
{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host","label":"lo","valid_life_time":4294967295,
"preferred_life_time":4294967295}]},
{"ifindex":2,"link_index":2,"ifname":"m0","addr_info":[
{"family":"inet","local":"203.0.113.77","prefixlen":24,"scope":"global","secondary":true,"dynamic":true,"label":"m0",
"valid_life_time":598,"preferred_life_time":298},
{"family":"inet6","local":"2001:db8:1:0:b5:f978:b59:f229","prefixlen":64,"scope":"global","temporary":true,
"dynamic":true,"valid_life_time":86399,"preferred_life_time":14399},
{"family":"inet6","local":"2001:db8:1:0:5054:8dff:fe9b:358d","prefixlen":64,"scope":"global","dynamic":true,
"mngtmpaddr":true,"valid_life_time":86399,"preferred_life_time":14399},
{"family":"inet6","local":"2001:db8:1::30","prefixlen":64,"scope":"global","deprecated":true,"nodad":true,
"valid_life_time":4294967295,"preferred_life_time":0},
{"family":"inet6","local":"2001:db8:1::31","prefixlen":64,"scope":"global","tentative":true,"dadfailed":true,
"valid_life_time":4294967295,"preferred_life_time":4294967295},
{"family":"inet6","local":"2001:db8:9::10","prefixlen":64,"scope":"global","valid_life_time":4294967295,
"preferred_life_time":4294967295},
{"family":"inet6","local":"fe80::5054:8dff:fe9b:358d","prefixlen":64,"scope":"link","valid_life_time":4294967295,
"preferred_life_time":4294967295}]},{}]"""
FLOW = Flow("203.0.113.10", "198.51.100.25", "m0", 100, ("203.0.113.10",))
FLOW6 = Flow("2001:db8:1::10", "2001:db8:2::25", "m0", 100, ("2001:db8:1::10",))


# Addresses


def test_the_rows_of_ip_are_read_with_flags_and_lifetimes() -> None:
    rows = parse_addresses(SHOWN)
    assert rows[1] == Address("203.0.113.77", 24, "m0", "global", ("dynamic", "secondary"), 598, 298)
    assert rows[2].flags == ("dynamic", "temporary")
    assert (rows[4].valid, rows[4].preferred, rows[4].flags) == (None, 0, ("deprecated",))
    assert [row.preferable for row in rows] == [False, True, True, True, False, False, True, False]


def test_rivals_are_the_preferable_ones_of_one_prefix() -> None:
    rows = parse_addresses(SHOWN)
    assert [rivals(rows[index], rows) for index in (1, 2, 4, 6)] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    "text", ["{", "{}", "[1]", '[{"addr_info": [{"local": "x"}]}]', '[{"addr_info": 7}]', "[" * 9999]
)
def test_what_ip_never_prints_is_an_error_that_people_can_read(text: str) -> None:
    with pytest.raises(AgentError) as raised:
        parse_addresses(text)
    assert raised.value.kind is Kind.PROTOCOL


@pytest.mark.parametrize(
    ("address", "sort"),
    [
        ("8.8.8.8", Sort.GLOBAL),
        ("2600::1", Sort.GLOBAL),
        ("10.1.2.3", Sort.PRIVATE),
        ("172.31.0.1", Sort.PRIVATE),
        ("172.32.0.1", Sort.GLOBAL),
        ("100.64.0.9", Sort.SHARED),
        ("169.254.7.7", Sort.LINK_LOCAL),
        ("fe80::1", Sort.LINK_LOCAL),
        ("fe80::1%m0", Sort.LINK_LOCAL),
        ("fd00::1", Sort.UNIQUE_LOCAL),
        ("127.0.0.1", Sort.LOOPBACK),
        ("::1", Sort.LOOPBACK),
        ("203.0.113.1", Sort.DOCUMENTATION),
        ("2001:db8::1", Sort.DOCUMENTATION),
        ("::ffff:8.8.8.8", Sort.OTHER),
        ("224.0.0.1", Sort.OTHER),
    ],
)
def test_every_address_is_of_one_sort(address: str, sort: Sort) -> None:
    assert sort_of(address) is sort


def test_the_default_destinations_are_of_the_internet_and_of_both_families() -> None:
    assert [(family_of(address), sort_of(address)) for address in egress.DESTINATIONS] == [
        (4, Sort.GLOBAL),
        (6, Sort.GLOBAL),
    ]


# What exim's option does


@pytest.mark.parametrize(
    ("interfaces", "family", "chosen"),
    [
        ([], 4, ""),
        (["203.0.113.10"], 4, "203.0.113.10"),
        (["203.0.113.10"], 6, ""),
        (["2001:db8::1", "203.0.113.10", "203.0.113.11"], 4, "203.0.113.10"),
        (["203.0.113.10", "mail.example"], 4, "203.0.113.10"),
    ],
)
def test_exim_takes_the_first_interface_of_the_family(interfaces: list[str], family: int, chosen: str) -> None:
    assert choose_interface(interfaces, family) == (chosen, "")


def test_exim_gives_up_at_an_interface_that_is_no_address() -> None:
    chosen, problem = choose_interface(["mail.example\x1b", "203.0.113.10"], 4)
    assert chosen == "" and "is not an IP address" in problem and "\x1b" not in problem


def test_the_kernel_is_asked_for_exims_user_and_port() -> None:
    asked = " ".join(route_question("198.51.100.25", 25, 100, "203.0.113.10"))
    assert asked == "ip -j route get 198.51.100.25 from 203.0.113.10 uid 100 ipproto tcp dport 25"
    assert "uid" not in route_question("198.51.100.25", 587, None)


# What a receiver sees


UNCHANGED = Translation(Verdict.UNCHANGED)
UNKNOWN = Translation(Verdict.UNKNOWN, reason="nobody may look")


@pytest.mark.parametrize(
    ("source", "translated", "public", "seen"),
    [
        ("8.8.8.8", UNCHANGED, (), ("8.8.8.8",)),
        ("8.8.8.8", UNCHANGED, ("9.9.9.9",), ("8.8.8.8",)),
        ("8.8.8.8", UNKNOWN, (), ()),
        ("8.8.8.8", UNKNOWN, ("9.9.9.9",), ("9.9.9.9",)),
        ("10.0.0.1", UNCHANGED, (), ()),
        ("100.64.0.1", UNCHANGED, (), ()),
        ("10.0.0.1", UNCHANGED, ("9.9.9.9", "9.9.9.8"), ("9.9.9.9", "9.9.9.8")),
        ("10.0.0.1", Translation(Verdict.REWRITTEN, "9.9.9.9"), (), ("9.9.9.9",)),
        ("8.8.8.8", Translation(Verdict.REWRITTEN, "10.0.0.9"), (), ()),
    ],
)
def test_what_is_seen_is_known_or_there_is_a_reason(
    source: str, translated: Translation, public: tuple[str, ...], seen: tuple[str, ...]
) -> None:
    found, reason = what_is_seen(source, "198.51.100.25", translated, public)
    assert found == seen and bool(reason) is (not seen)


def test_a_private_source_is_seen_as_it_is_by_a_private_smarthost() -> None:
    assert what_is_seen("10.0.0.1", "10.0.0.2", UNCHANGED, ()) == (("10.0.0.1",), "")


# Rules of nftables, as nft 1.0.6 prints them


Statement = dict[str, Any]


def ruleset(*rules: list[Statement], family: str = "ip", prio: int = 100, **chains: list[Statement]) -> str:
    """The JSON of a chain at postrouting with `rules`; and of further chains, each of one rule."""
    table = {"family": family, "table": "n"}
    hook = {**table, "name": "p", "type": "nat", "hook": "postrouting", "prio": prio}
    entries: list[Statement] = [{"metainfo": {}}, {"table": {"family": family, "name": "n"}}, {"chain": hook}]
    for name, rule in [*(("p", rule) for rule in rules), *chains.items()]:
        entries.append({"rule": {**table, "chain": name, "expr": rule}})
    return json.dumps({"nftables": entries})


def match(left: Any, right: Any, op: str = "==") -> Statement:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> Statement:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> Statement:
    return {"meta": {"key": key}}


def prefix(address: str, length: int) -> Statement:
    return {"prefix": {"addr": address, "len": length}}


def jump(target: str) -> Statement:
    return {"jump": {"target": target}}


SNAT: Statement = {"snat": {"addr": "203.0.113.200"}}
MASQUERADE: Statement = {"masquerade": None}
ACCEPT: Statement = {"accept": None}
RETURN: Statement = {"return": None}
DPORT = payload("tcp", "dport")
SADDR, DADDR = payload("ip", "saddr"), payload("ip", "daddr")
STATE = match({"ct": {"key": "state"}}, "new", "in")
TO_200, STAYS = "203.0.113.200", ""


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], STAYS),
        ([[SNAT]], TO_200),
        ([[match(DPORT, 25), SNAT]], TO_200),
        ([[match(DPORT, 26), SNAT]], STAYS),
        ([[match(DPORT, 25, "!="), SNAT]], STAYS),
        ([[match(DPORT, {"set": [25, 587]}), SNAT]], TO_200),
        ([[match(DPORT, {"set": [26, 587]}), SNAT]], STAYS),
        ([[match(DPORT, {"set": [{"elem": {"val": 25, "comment": "x"}}]}), SNAT]], TO_200),
        ([[match(DPORT, {"range": [20, 30]}), SNAT]], TO_200),
        ([[match(DPORT, {"range": [26, 30]}), SNAT]], STAYS),
        ([[match(SADDR, prefix("172.17.0.0", 16)), MASQUERADE]], STAYS),
        ([[match(SADDR, prefix("203.0.113.0", 24)), SNAT]], TO_200),
        ([[match(SADDR, "203.0.113.10", "!="), SNAT]], STAYS),
        ([[match(DADDR, {"range": ["198.51.100.1", "198.51.100.99"]}), SNAT]], TO_200),
        ([[match(DADDR, {"range": ["198.51.100.1", "198.51.100.9"]}), SNAT]], STAYS),
        ([[match(meta("oifname"), "m*"), SNAT]], TO_200),
        ([[match(meta("oifname"), "m"), SNAT]], STAYS),
        ([[match(meta("oifname"), "docker0", "!="), SNAT]], TO_200),
        ([[match(meta("skuid"), 100), SNAT]], TO_200),
        ([[match(meta("skuid"), 0), SNAT]], STAYS),
        ([[match(meta("l4proto"), {"set": ["tcp", "udp"]}), SNAT]], TO_200),
        ([[match(meta("nfproto"), "ipv6"), SNAT]], STAYS),
        ([[match(payload("udp", "dport"), 25), SNAT]], STAYS),
        ([[match(payload("ip6", "saddr"), "::1", "!="), SNAT]], STAYS),
        ([[{"counter": {"packets": 0, "bytes": 0}}, {"log": None}, SNAT]], TO_200),
        ([[{"snat": {"port": 2000}}], [SNAT]], STAYS),
        ([[MASQUERADE]], FLOW.source),
        ([[ACCEPT], [SNAT]], STAYS),
        ([[RETURN], [SNAT]], STAYS),
        ([[match(DPORT, 26), ACCEPT], [SNAT]], TO_200),
    ],
)
def test_what_is_certain_of_a_chain_is_said(rules: list[list[Statement]], expected: str) -> None:
    assert judge_rules(parse_rules(ruleset(*rules)), FLOW) == Rewrite(expected)


@pytest.mark.parametrize(
    "rules",
    [
        [[STATE, SNAT]],
        [[STATE, ACCEPT], [SNAT]],
        [[STATE, RETURN], [SNAT]],
        [[match(DPORT, "@ports"), SNAT]],
        [[match(DPORT, {"set": []}), SNAT]],
        [[match(DPORT, {"set": [26, "@ports"]}), SNAT]],
        [[match({"&": [meta("mark"), 255]}, 1), SNAT]],
        [[match("odd", {"odd": 1}), SNAT]],
        [[{"limit": {"rate": 1, "per": "second"}}, SNAT]],
        [[{"snat": {"addr": {"range": ["203.0.113.1", "203.0.113.5"]}}}]],
        [[{"xt": None}]],
        [[{"vmap": {"key": {}, "data": {}}}]],
        [[jump("p")]],
    ],
)
def test_what_is_not_understood_is_a_doubt_and_no_guess(rules: list[list[Statement]]) -> None:
    found = judge_rules(parse_rules(ruleset(*rules)), FLOW)
    assert found.address == "" and "table ip n" in found.doubt


def test_a_masquerade_with_a_choice_or_with_none_is_a_doubt() -> None:
    rules = parse_rules(ruleset([MASQUERADE]))
    assert judge_rules(rules, replace(FLOW, choices=("203.0.113.10", "203.0.113.11"))).doubt
    assert judge_rules(rules, replace(FLOW, choices=())).doubt


@pytest.mark.parametrize(
    ("rules", "called", "expected"),
    [
        ([[jump("c")]], [SNAT], TO_200),
        ([[jump("c")], [SNAT]], [RETURN], TO_200),
        ([[jump("c")], [SNAT]], [ACCEPT], STAYS),
        ([[{"goto": {"target": "c"}}], [SNAT]], [{"counter": None}], STAYS),
        ([[STATE, jump("c")]], [SNAT], None),
        ([[STATE, {"goto": {"target": "c"}}], [SNAT]], [{"counter": None}], None),
        ([[jump("c")], [SNAT]], [STATE, ACCEPT], None),
    ],
)
def test_other_chains_are_followed_there_and_back(
    rules: list[list[Statement]], called: list[Statement], expected: str | None
) -> None:
    found = judge_rules(parse_rules(ruleset(*rules, c=called)), FLOW)
    assert bool(found.doubt) is (expected is None) and found.address == (expected or "")


def test_only_chains_of_its_family_that_rewrite_sources_are_asked() -> None:
    assert judge_rules(parse_rules(ruleset([SNAT], family="ip6")), FLOW) == Rewrite()
    assert judge_rules(parse_rules(ruleset([SNAT])), FLOW6) == Rewrite()
    both = parse_rules(ruleset([{"snat": {"family": "ip6", "addr": "2001:db8::9"}}], [SNAT], family="inet"))
    assert judge_rules(both, FLOW).address == TO_200
    assert judge_rules(both, FLOW6).address == "2001:db8::9"
    assert judge_rules(parse_rules(ruleset([SNAT]).replace("postrouting", "prerouting")), FLOW) == Rewrite()


def test_of_two_chains_the_one_of_the_lower_priority_wins() -> None:
    late = json.loads(ruleset([{"snat": {"addr": "1.1.1.1"}}]))["nftables"]
    early = json.loads(ruleset([{"snat": {"addr": "2.2.2.2"}}], prio=-5, family="inet"))["nftables"]
    assert judge_rules(parse_rules(json.dumps({"nftables": [*late, *early]})), FLOW).address == "2.2.2.2"


def test_where_packets_are_rerouted_the_interface_is_not_known() -> None:
    rules = json.loads(ruleset([match(meta("oifname"), "other0"), SNAT]))
    assert judge_rules(parse_rules(json.dumps(rules)), FLOW) == Rewrite()
    rules["nftables"].append({"chain": {"family": "ip", "table": "n", "name": "r", "type": "route", "hook": "output"}})
    assert judge_rules(parse_rules(json.dumps(rules)), FLOW).doubt


@pytest.mark.parametrize("text", ["", "{}", '{"nftables": [1]}', '{"nftables": [{"rule": {}}]}', "[" * 99999])
def test_what_nft_never_prints_is_an_error_that_people_can_read(text: str) -> None:
    with pytest.raises(AgentError) as raised:
        parse_rules(text)
    assert raised.value.kind is Kind.PROTOCOL


# What this host translates


@pytest.fixture
def made(tmp_path: Path) -> Host:
    """A kernel that may translate: nf_nat is loaded."""
    host = Host(str(tmp_path / "root"), str(tmp_path / "root/proc"))
    put(host, "/proc/sys/kernel/osrelease", "6.1.0-56-amd64\n")
    put(host, "/proc/sys/kernel/version", "#1 SMP\n")
    put(host, "/proc/modules", "nf_nat 57344 1 nft_chain_nat, Live 0x0\nnf_conntrack 176128 1 nf_nat, Live 0x0\n")
    put(host, "/lib/modules/6.1.0-56-amd64/modules.builtin", "kernel/fs/ext4/ext4.ko\n")
    return host


def test_a_kernel_without_its_translator_changes_nothing_and_nobody_is_asked(made: Host) -> None:
    put(made, "/proc/modules", "xt_nf_nat 1 0 - Live 0x0\nnf_conntrack 176128 0 - Live 0x0\n")
    assert has_no_translator(made)
    assert read_translation(made, FLOW, lambda: pytest.fail("asked")) == UNCHANGED


@pytest.mark.parametrize("path", ["/proc/modules", "/lib/modules/6.1.0-56-amd64/modules.builtin"])
def test_a_translator_that_may_be_built_in_is_not_ruled_out(made: Host, path: str) -> None:
    put(made, "/proc/modules", "ext4 1 0 - Live 0x0\n")
    assert has_no_translator(made)
    Path(made.under(path)).unlink()
    assert not has_no_translator(made)
    put(made, path, "kernel/net/netfilter/nf_nat.ko\n")
    put(made, "/proc/modules", "ext4 1 0 - Live 0x0\n")
    assert has_no_translator(made) is (path == "/proc/modules")


def test_rules_that_nobody_may_read_leave_it_unknown_and_show_what_was_seen(made: Host) -> None:
    put(
        made,
        "/proc/net/nf_conntrack",
        "ipv4     2 tcp      6 119 TIME_WAIT src=203.0.113.10 dst=198.51.100.25 sport=48438 dport=25 "
        "src=198.51.100.25 dst=203.0.113.200 sport=25 dport=48438 [ASSURED] mark=0 zone=0 use=2\n"
        "ipv4     2 tcp      6 119 TIME_WAIT src=203.0.113.11 dst=198.51.100.25 sport=1 dport=25 "
        "src=198.51.100.25 dst=203.0.113.201 sport=25 dport=1 mark=0 use=2\n"
        "ipv4     2 tcp      6 431999 ESTABLISHED src=203.0.113.10 dst=198.51.100.25 sport=1 dport=443 "
        "src=198.51.100.25 dst=203.0.113.202 sport=443 dport=1 mark=0 use=2\n"
        "ipv6     10 tcp      6 9 TIME_WAIT src=2001:0db8:0001:0000:0000:0000:0000:0010 dst=2001:0db8::25 sport=9 "
        "dport=25 src=2001:0db8::25 dst=2001:0db8:0001:0000:0000:0000:0000:0200 sport=25 dport=9 use=2\n",
    )

    def refuse() -> str:
        raise AgentError(Kind.DENIED, "Operation not permitted")

    found = read_translation(made, FLOW, refuse)
    assert found == Translation(Verdict.UNKNOWN, "", "Operation not permitted", ("203.0.113.200",))
    assert read_observed(made, FLOW6) == ("2001:db8:1::200",)


def test_rules_that_can_be_read_decide(made: Host) -> None:
    assert read_translation(made, FLOW, lambda: ruleset()) == UNCHANGED
    assert read_translation(made, FLOW, lambda: ruleset([MASQUERADE])) == UNCHANGED
    assert read_translation(made, FLOW, lambda: ruleset([SNAT])) == Translation(Verdict.REWRITTEN, "203.0.113.200")
    assert read_translation(made, FLOW, lambda: "{").verdict is Verdict.UNKNOWN


def test_a_table_of_the_old_iptables_cannot_be_read_so_it_is_unknown(made: Host) -> None:
    put(made, "/proc/net/ip_tables_names", "filter\n")
    assert read_translation(made, FLOW, lambda: ruleset()) == UNCHANGED
    put(made, "/proc/net/ip_tables_names", "filter\nnat\n")
    found = read_translation(made, FLOW, lambda: ruleset())
    assert found.verdict is Verdict.UNKNOWN and "iptables-legacy" in found.reason


# The echo


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("host1.example.org Hello probe.example [203.0.113.1]", "203.0.113.1"),
        ("mx.example at your service, [2001:DB8::1]", "2001:db8::1"),
        ("mx.example Hello [IPv6:2001:db8::1], pleased to meet you", "2001:db8::1"),
        ("mx.example Hello x [::ffff:203.0.113.1]", "203.0.113.1"),
        ("mx.example [999.1.1.1] [203.0.113.1]", "203.0.113.1"),
        ("mail.example", ""),
        ("mail.example []", ""),
    ],
)
def test_the_address_in_a_greeting_is_read(line: str, seen: str) -> None:
    assert parse_echo(line).seen == seen


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does `talk` with the first who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def says(*texts: bytes) -> Callable[[socket.socket], None]:
    """A server that says one text after the other, each once it was spoken to (the first one at once)."""

    def talk(connection: socket.socket) -> None:
        for text in texts:
            connection.sendall(text)
            connection.recv(100)

    return talk


@pytest.mark.real
@pytest.mark.parametrize(
    ("talk", "seen", "problem"),
    [
        (says(b"220-hello\r\n220 there\r\n", b"250-mx Hello p [192.0.2.7]\r\n250 HELP\r\n"), "192.0.2.7", ""),
        (says(b"220 a\n", b"250 mx\n"), "", "does not tell"),
        (says(b"554 go away\r\n"), "", "554 go away"),
        (says(b"220 a\r\n", b"502 \x1b[2J no\r\n"), "", "502"),
        (says(b"220 a\r\n", b"25"), "", "did not answer within"),
        (says(b"220 a\r\n", b"250-x\r\n" * 20000), "", "too much"),
        (says(b"x" * 200_000), "", "too much"),
        (lambda connection: connection.close(), "", "hung up"),
    ],
)
def test_whatever_a_server_does_there_is_an_answer_or_a_reason_in_time(
    talk: Callable[[socket.socket], None], seen: str, problem: str
) -> None:
    limit = 0.7 if "within" in problem else 10.0
    with server(talk) as port:
        found = ask_echo("127.0.0.1", port, "127.0.0.1", "probe.example", limit)
    assert found.seen == seen and problem in found.problem and bool(found.problem) is (not seen)
    assert "\x1b" not in found.problem


@pytest.mark.real
def test_a_server_that_dribbles_does_not_stretch_the_limit() -> None:
    ended = threading.Event()

    def dribble(connection: socket.socket) -> None:
        while not ended.wait(0.05):
            connection.sendall(b"2")

    with server(dribble) as port:
        found = ask_echo("127.0.0.1", port, "127.0.0.1", "probe.example", 0.5)
        ended.set()
    assert found == Echo(problem="it did not answer within 0.5 s")


@pytest.mark.parametrize("name", ["", "a b", "a\r\nMAIL FROM:<x@y>", "-a", "x" * 300])
def test_our_own_name_cannot_smuggle_a_command(name: str) -> None:
    assert ask_echo("127.0.0.1", 1, "127.0.0.1", name).problem == "our own name is not fit for a greeting"


def test_nothing_is_connected_to_by_name() -> None:
    assert ask_echo("localhost", 25, "127.0.0.1", "probe.example").problem.startswith("no connection")
