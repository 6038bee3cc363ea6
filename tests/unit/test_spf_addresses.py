"""The static address set of a record: over zones in memory, and held against `check_host` itself."""

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.spf.addresses import MOST_ENTRIES, Reach, flatten
from agent.spf.costs import weigh
from agent.spf.evaluate import QUALIFIERS, Query, check_host
from agent.spf.lint import Remark
from agent.spf.ranges import covers, is_proxy, literal, twin_of, without
from agent.spf.record import Result, parse
from tests.spf.zone import Memory, Zone

DOMAIN = "example.org"


def reach_of(text: str, zone: dict[str, list[Any]] | None = None) -> Reach:
    return asyncio.run(flatten(DOMAIN, parse(text), Memory(Zone.load(zone or {}))))


def listed(reach: Reach) -> list[tuple[str, str]]:
    return [(entry.qualifier, str(entry.network)) for entry in reach.entries]


def spf(text: str) -> list[Any]:
    return [{"TXT": text}]


def codes(reach: Reach) -> list[tuple[str, str]]:
    return [(remark.code, remark.severity) for remark in weigh(reach)]


def remark_of(reach: Reach, code: str, early: bool = False) -> Remark:
    (found,) = [remark for remark in weigh(reach, early) if remark.code == code]
    return found


# Which addresses


def test_literals_stand_in_their_order_with_their_qualifiers() -> None:
    reach = reach_of("v=spf1 ip4:88.198.1.2/24 -ip6:2a01:4f8::1 ~all")
    assert listed(reach) == [("+", "88.198.1.0/24"), ("-", "2a01:4f8::1/128"), ("~", "0.0.0.0/0"), ("~", "::/0")]
    assert reach.lookups == 0
    assert reach.ttl is None


def test_what_stands_after_all_is_not_asked_for() -> None:
    reach = reach_of("v=spf1 -all a include:x.example.org redirect=y.example.org")
    assert listed(reach) == [("-", "0.0.0.0/0"), ("-", "::/0")]
    assert (reach.costs, reach.troubles) == ((), ())


def test_a_and_mx_are_their_addresses_of_both_families_with_their_prefixes() -> None:
    zone = {
        DOMAIN: [{"A": "88.198.1.2"}, {"AAAA": "2a01:4f8::2"}, {"MX": [10, "mail.example.org"]}],
        "mail.example.org": [{"A": "88.198.7.7"}, {"A": "88.198.7.8"}],
        "other.example.net": [{"A": "88.198.9.9"}],
    }
    reach = reach_of("v=spf1 a mx/24 ?a:OTHER.example.net. -all", zone)
    assert listed(reach)[:4] == [
        ("+", "88.198.1.2/32"),
        ("+", "2a01:4f8::2/128"),
        ("+", "88.198.7.0/24"),
        ("?", "88.198.9.9/32"),
    ]
    assert (reach.lookups, reach.ttl) == (3, 60)
    assert [str(network) for network in reach.authorised(6)] == ["2a01:4f8::2/128"]


def test_each_address_tells_the_way_by_which_it_is_authorised() -> None:
    zone = {
        "a.example.net": spf("v=spf1 include:b.example.net ?all"),
        "b.example.net": spf("v=spf1 ip4:88.198.1.2 -all"),
    }
    reach = reach_of("v=spf1 include:a.example.net -all", zone)
    entry = reach.entries[0]
    assert [(hop.domain, hop.term) for hop in entry.path] == [
        (DOMAIN, "include:a.example.net"),
        ("a.example.net", "include:b.example.net"),
        ("b.example.net", "ip4:88.198.1.2"),
    ]
    assert reach.lookups == 2
    assert [(cost.hop.term, cost.lookups) for cost in reach.costs] == [("include:a.example.net", 2)]
    assert reach.networks_of(7) == (ip_network("88.198.1.2"),)


def test_an_include_gives_what_passes_there_less_what_it_denied_before() -> None:
    zone = {"a.example.net": spf("v=spf1 -ip4:88.198.1.0/25 ip4:88.198.1.0/24 ip6:2a01:4f8::/32 -all")}
    reach = reach_of("v=spf1 ~include:a.example.net -all", zone)
    assert listed(reach)[:2] == [("~", "88.198.1.128/25"), ("~", "2a01:4f8::/32")]
    assert len(reach.entries) == 4


def test_a_redirect_brings_the_other_record_with_its_qualifiers() -> None:
    zone = {"_spf.example.net": spf("v=spf1 ip4:88.198.1.2 ~all")}
    reach = reach_of("v=spf1 redirect=_spf.example.net ip4:88.198.9.9", zone)
    assert [network for _, network in listed(reach)][:2] == ["88.198.9.9/32", "88.198.1.2/32"]
    assert listed(reach)[2] == ("~", "0.0.0.0/0")
    assert reach.lookups == 1


@pytest.mark.parametrize(
    "term", ["exists:%{i}.example.org", "a:%{d}", "mx:%{h}.org", "include:%{d}.example.org", "ptr", "ptr:example.org"]
)
def test_what_depends_on_the_mail_or_the_client_is_named(term: str) -> None:
    reach = reach_of(f"v=spf1 {term} -all")
    assert [item.path[0].term for item in reach.opaque] == [term]
    assert reach.lookups == 1
    assert reach.networks_of(7) is None


def test_a_fixed_exists_is_everybody_or_nobody() -> None:
    zone: dict[str, list[Any]] = {"yes.example.org": [{"A": "127.0.0.2"}]}
    assert listed(reach_of("v=spf1 exists:yes.example.org", zone)) == [("+", "0.0.0.0/0"), ("+", "::/0")]
    assert listed(reach_of("v=spf1 exists:no.example.org", zone)) == []


# What breaks


def test_an_include_that_leads_to_nothing_is_critical_and_may_be_taken_over() -> None:
    zone: dict[str, list[Any]] = {"bare.example.net": [{"TXT": "nothing of ours"}]}
    absent = reach_of("v=spf1 include:gone.example.net -all", zone)
    assert [trouble.kind for trouble in absent.troubles] == ["absent"]
    found = remark_of(absent, "dead-include")
    assert (found.severity, found.start, found.end) == ("critical", 7, 31)
    assert "gets hold of the name" in found.message
    assert "take out `include:gone.example.net`" in found.advice
    dead = reach_of("v=spf1 include:bare.example.net -all", zone)
    assert [trouble.kind for trouble in dead.troubles] == ["dead"]
    assert "gets hold of" not in remark_of(dead, "dead-include").message


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["v=spf1 -all", "v=spf1 a -all"], "has 2 SPF records"),
        (["v=spf1 ip4:x -all"], "is broken"),
        (["v=spf1 include:example.org -all"], "leads back to itself"),
        (["v=spf1 mx:many.example.net -all"], "11 MX records"),
    ],
)
def test_what_breaks_an_include_breaks_the_record(texts: list[str], said: str) -> None:
    zone: dict[str, list[Any]] = {
        "x.example.net": [{"TXT": text} for text in texts],
        "many.example.net": [{"MX": [10, f"m{number}.example.net"]} for number in range(11)],
        **{f"m{number}.example.net": [{"A": "88.198.1.2"}] for number in range(11)},
    }
    found = remark_of(reach_of("v=spf1 include:x.example.net -all", zone), "broken-term")
    assert found.severity == "critical"
    assert said in found.message


def test_ten_exchangers_are_few_enough() -> None:
    zone: dict[str, list[Any]] = {DOMAIN: [{"MX": [10, f"m{n}.example.net"]} for n in range(10)]}
    zone |= {f"m{n}.example.net": [{"A": f"88.198.1.{n}"}, {"AAAA": "2a01::1"}] for n in range(10)}
    reach = reach_of("v=spf1 mx -all", zone)
    assert reach.troubles == ()
    assert len(reach.authorised(4)) == 10


def test_the_smallest_ttl_of_all_answers_is_told() -> None:
    zone = Zone.load({name: [{"A": "88.198.1.2"}, {"AAAA": "2a01::1"}] for name in ("a.org", "b.org", "c.org")})
    zone.ttls = {"a.org": 500, "b.org": 40, "c.org": 90}
    reach = asyncio.run(flatten(DOMAIN, parse("v=spf1 a:a.org a:b.org a:c.org -all"), Memory(zone)))
    assert reach.ttl == 40


def test_an_include_of_itself_ends() -> None:
    reach = reach_of("v=spf1 include:example.org -all", {DOMAIN: spf("v=spf1 include:example.org -all")})
    assert [trouble.message for trouble in reach.troubles] == ["example.org leads back to itself"]


def test_a_dns_that_fails_is_unknown_and_never_worse() -> None:
    zone: dict[str, list[Any]] = {"slow.example.net": ["TIMEOUT"]}
    reach = reach_of("v=spf1 a:slow.example.net include:slow.example.net -all", zone)
    assert {trouble.kind for trouble in reach.troubles} == {"temperror"}
    assert {severity for _, severity in codes(reach)} == {"unknown"}
    assert reach.voids == 0


@pytest.mark.parametrize("term", ["a:x..example.org", f"mx:{'x' * 64}.example.org", "include:x..example.org"])
def test_a_name_that_dns_cannot_have_is_not_asked_for(term: str) -> None:
    memory = Memory(Zone.load({}))
    reach = asyncio.run(flatten(DOMAIN, parse(f"v=spf1 {term} -all"), memory))
    assert (memory.asked, reach.lookups) == ([], 1)
    assert [trouble.kind for trouble in reach.troubles] == ["dead"] * term.startswith("include")


def test_the_walk_through_records_has_an_end() -> None:
    deep = {f"d{n}.example.net": spf(f"v=spf1 include:d{n + 1}.example.net -all") for n in range(100)}
    reach = reach_of("v=spf1 include:d0.example.net -all", deep)
    assert reach.lookups < 15
    assert [(trouble.kind, "more terms than" in trouble.message) for trouble in reach.troubles] == [("permerror", True)]
    wide = {f"{n}.example.net": spf(f"v=spf1 include:{n}0.example.net include:{n}1.example.net ~all") for n in bits(6)}
    memory = Memory(Zone.load(wide))
    asyncio.run(flatten(DOMAIN, parse("v=spf1 include:0.example.net include:1.example.net -all"), memory))
    assert len(memory.asked) == 50


def test_a_record_of_a_thousand_names_is_not_asked_to_its_end() -> None:
    memory = Memory(Zone.load({}))
    text = "v=spf1 " + " ".join(f"a:{n}.example.net" for n in range(1000)) + " -all"
    reach = asyncio.run(flatten(DOMAIN, parse(text), memory))
    assert (len(memory.asked), reach.lookups, len(reach.troubles)) == (200, 100, 1)


def bits(most: int) -> list[str]:
    return [f"{number:0{width}b}" for width in range(1, most + 1) for number in range(2**width)]


@pytest.mark.parametrize(
    ("text", "listed_in_full"),
    [
        (" ".join(f"-ip6:2a01::{n:x}" for n in range(1, 30)) + " ip6:2a01::/16", True),
        (" ".join(f"-ip6:2a01::{n:x}" for n in range(1, 200)) + " ip6:2a01::/16", False),
        (" ".join(f"-ip4:10.0.{n}.0/32 ip4:{n}.0.0.0/1" for n in range(99)), False),
        (" ".join(f"ip4:10.0.{n // 200}.{n % 200}" for n in range(MOST_ENTRIES + 1)), False),
    ],
    ids=["few", "denies-many", "splits-into-many", "many"],
)
def test_a_record_made_to_explode_is_not_listed(text: str, listed_in_full: bool) -> None:
    reach = reach_of("v=spf1 include:x.example.net -all", {"x.example.net": spf(f"v=spf1 {text}")})
    assert (reach.networks_of(7) is not None) is listed_in_full
    assert len(reach.opaque) == (not listed_in_full)
    assert len(reach.entries) <= MOST_ENTRIES + 2


def test_once_there_are_too_many_nothing_more_is_listed_and_each_term_says_so() -> None:
    half = range(MOST_ENTRIES // 2)
    zone = {"x.example.net": spf("v=spf1 " + " ".join(f"ip4:10.{n // 200}.{n % 200}.1" for n in half))}
    reach = reach_of("v=spf1 include:x.example.net ip4:88.198.1.2 a include:x.example.net -all", zone)
    assert [item.path[0].start for item in reach.opaque] == [29, 44, 46]
    assert len(reach.entries) == MOST_ENTRIES // 2 + 2
    assert reach.networks_of(29) is None


# What it costs


def test_eleven_lookups_are_one_too_many_and_the_dearest_term_is_named() -> None:
    zone = {f"{n}.example.net": spf("v=spf1 ip4:88.198.1.2 -all") for n in range(6)}
    zone["big.example.net"] = spf("v=spf1 " + " ".join(f"include:{n}.example.net" for n in range(5)) + " ~all")
    terms = " ".join(f"include:{n}.example.net" for n in range(4))
    ten = reach_of(f"v=spf1 {terms} include:big.example.net -all", zone)
    assert ten.lookups == 10
    assert codes(ten) == [("lookup-cost", "info")]
    assert "costs 6 of the 10" in remark_of(ten, "lookup-cost").message
    eleven = reach_of(f"v=spf1 {terms} include:5.example.net include:big.example.net -all", zone)
    found = remark_of(eleven, "too-many-lookups")
    assert found.severity == "critical"
    assert "need 11 look-ups (`include:big.example.net` 6, " in found.message
    assert "take out `include:big.example.net`" in found.advice
    early = remark_of(eleven, "early-match", early=True)
    assert early.severity == "warning"
    assert "all other senders" in early.message


def test_from_eight_lookups_on_the_cost_of_each_include_is_told() -> None:
    zone = {"x.example.net": spf("v=spf1 include:y.example.net -all"), "y.example.net": spf("v=spf1 -all")}
    zone |= {f"{n}.example.net": spf("v=spf1 -all") for n in range(6)}
    for plain, told in ((5, []), (6, [("lookup-cost", "info")])):
        terms = " ".join(f"include:{n}.example.net" for n in range(plain))
        assert codes(reach_of(f"v=spf1 {terms} include:x.example.net -all", zone)) == told


def test_a_short_way_is_not_reckoned_up() -> None:
    zone = {"x.example.net": spf("v=spf1 include:y.example.net -all"), "y.example.net": spf("v=spf1 -all")}
    assert weigh(reach_of("v=spf1 include:x.example.net -all", zone)) == ()


def test_more_than_two_voids_break_the_record_for_one_family_or_both() -> None:
    zone: dict[str, list[Any]] = {f"{n}.example.net": [{"A": "88.198.1.2"}] for n in range(3)}
    two = reach_of("v=spf1 a:0.example.net a:1.example.net -all", zone)
    assert (two.voids, codes(two)) == (2, [])
    three = reach_of("v=spf1 a:0.example.net a:1.example.net a:2.example.net -all", zone)
    assert [(cost.voids4, cost.voids6) for cost in three.costs] == [(0, 1)] * 3
    assert codes(three) == [("too-many-voids", "critical")]
    found = remark_of(reach_of(three_terms().replace("-all", "exists:0.example.net -all"), zone), "too-many-voids")
    assert "(`a:0.example.net`, `a:1.example.net`, `a:2.example.net`)" in found.message
    client = Query(ip_address("2a01:4f8::1"), f"x@{DOMAIN}", DOMAIN, record=three_terms())
    assert asyncio.run(check_host(client, Memory(Zone.load(zone)))).result is Result.PERMERROR


def three_terms() -> str:
    return "v=spf1 a:0.example.net a:1.example.net a:2.example.net -all"


def test_a_term_is_void_once() -> None:
    zone: dict[str, list[Any]] = {"m.example.net": [{"MX": [1, "a.example.net"]}, {"MX": [2, "b.example.net"]}]}
    reach = reach_of("v=spf1 mx:m.example.net mx:none.example.net exists:none.example.net -all", zone)
    assert [(cost.voids4, cost.voids6) for cost in reach.costs] == [(1, 1)] * 3


# Ranges


def test_ranges_of_different_families_have_nothing_to_do_with_each_other() -> None:
    assert not covers(ip_network("0.0.0.0/0"), ip_address("::1"))
    assert covers(ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"))
    assert not covers(ip_network("10.1.0.0/16"), ip_network("10.0.0.0/8"))
    assert without(ip_network("10.0.0.0/8"), ip_network("::/0")) == [ip_network("10.0.0.0/8")]
    assert without(ip_network("10.0.0.0/32"), ip_network("10.0.0.0/8")) == []
    assert without(ip_network("10.0.0.0/31"), ip_network("10.0.0.1")) == [ip_network("10.0.0.0/32")]
    assert without(ip_network("2a01::/127"), ip_network("2a01::1")) == [ip_network("2a01::")]


def test_a_network_is_written_short() -> None:
    assert literal(ip_network("88.198.1.2")) == "ip4:88.198.1.2"
    assert literal(ip_network("2a01:4f8::/32")) == "ip6:2a01:4f8::/32"


def test_addresses_of_one_interface_are_twins_by_their_low_half() -> None:
    meant = ip_address("fe80::5054:8dff:fe9b:358d")
    held = [ip_address("88.198.1.2"), ip_address("2a01:4f8:1:2::1"), ip_address("2a01:4f8:1:2:5054:8dff:fe9b:358d")]
    assert meant.version == 6
    assert twin_of(meant, held) == held[2]
    assert twin_of(meant, [meant]) is None
    zero = ip_address("fe80::")
    assert zero.version == 6
    assert twin_of(zero, [ip_address("2a01:4f8::")]) is None


def test_a_web_proxy_is_known_by_its_ranges() -> None:
    assert is_proxy(ip_network("104.16.1.2")) and is_proxy(ip_network("2606:4700::6810:102"))
    assert not is_proxy(ip_network("88.198.1.2")) and not is_proxy(ip_network("104.0.0.0/8"))


# Held against check_host

NAMES = [f"{letter}.example.net" for letter in "abcd"]
HOSTS = {
    "h.example.net": [{"A": "88.0.0.1"}, {"AAAA": "2a01::1"}],
    "i.example.net": [{"A": "88.0.0.3"}, {"AAAA": "2a01::2"}, {"MX": [1, "h.example.net"]}],
}
QUALIFIER = st.sampled_from(["", "", "", "-", "~", "?"])
LITERAL = st.one_of(
    st.builds(lambda a, n: f"ip4:88.0.0.{a}/{n}", st.integers(0, 7), st.integers(28, 32)),
    st.builds(lambda a, n: f"ip6:2a01::{a}/{n}", st.integers(0, 7), st.integers(124, 128)),
)
TERM = st.one_of(
    LITERAL,
    LITERAL,
    st.sampled_from(NAMES).map(lambda name: f"include:{name}"),
    st.sampled_from(["a:h.example.net/31", "a:i.example.net", "mx:i.example.net//126", "exists:h.example.net"]),
)
ENDING = st.sampled_from(["", " -all", " ~all", " ?all", " +all", *(f" redirect={name}" for name in NAMES)])
RECORD = st.builds(
    lambda terms, ending: " ".join(["v=spf1", *terms]) + ending,
    st.lists(st.builds(lambda qualifier, term: qualifier + term, QUALIFIER, TERM), max_size=4),
    ENDING,
)
CLIENT = st.one_of(st.integers(0, 9).map(lambda n: f"88.0.0.{n}"), st.integers(0, 9).map(lambda n: f"2a01::{n}"))


@given(RECORD, st.lists(RECORD, min_size=4, max_size=4), CLIENT)
@settings(max_examples=200)
def test_the_first_entry_that_covers_an_address_says_what_check_host_says(
    text: str, others: list[str], client: str
) -> None:
    zone = Zone.load(HOSTS | {name: spf(other) for name, other in zip(NAMES, others, strict=True)})
    reach = asyncio.run(flatten(DOMAIN, parse(text), Memory(zone)))
    address = ip_address(client)
    judged = asyncio.run(check_host(Query(address, f"x@{DOMAIN}", DOMAIN, record=text), Memory(zone)))
    if reach.troubles or reach.opaque:
        return
    assert judged.lookups <= reach.lookups
    if judged.result is Result.PERMERROR:
        assert reach.lookups > 10 or reach.voids > 2
        return
    entry = next((entry for entry in reach.entries if covers(entry.network, address)), None)
    assert judged.result is (QUALIFIERS[entry.qualifier] if entry else Result.NEUTRAL)
