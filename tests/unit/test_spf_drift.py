"""Each way in which a record and a host drift apart, by its number in the list of failure modes, severity and advice.

Number 26, exim's own faults, is for the check `exim`. Verdicts come from `check_host` over zones in memory.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest

from agent.spf.addresses import Reach, flatten
from agent.spf.drift import (
    HELO,
    MAIL_FROM,
    Failures,
    Held,
    Judgement,
    Published,
    Sending,
    Source,
    Verdict,
    Views,
    judge,
    judge_sources,
    repair,
    senders,
    verdict_of,
)
from agent.spf.evaluate import Query, check_host
from agent.spf.lint import Remark
from agent.spf.publication import shown_age
from agent.spf.record import Result, is_record, parse
from tests.spf.zone import Memory, Zone

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
V4, V6 = IPv4Address("88.198.1.2"), IPv6Address("2a01:4f8:1:2:5054:8dff:fe9b:358d")
TEMPORARY = IPv6Address("2a01:4f8:1:2:abcd:ef01:2345:6789")
SOURCE4, SOURCE6 = Source(4, V4, "eth0", seen=(V4,)), Source(6, V6, "eth0", seen=(V6,))
UNUSED6 = Source(6, problem="no IPv6 route")
BOTH = Sending((SOURCE4, SOURCE6), (Held(V4, "eth0"), Held(V6, "eth0")))
ONLY4 = Sending((SOURCE4, UNUSED6), (Held(V4, "eth0"),))
GOOD = f"v=spf1 ip4:{V4} ip6:{V6} -all"
DOMAIN = "example.org"


async def _ask(text: str, zone: Zone, sending: Sending, domain: str) -> tuple[Reach, tuple[Verdict, ...]]:
    memory = Memory(zone)
    verdicts = []
    for address in sending.seen:
        found = await check_host(Query(address, f"x@{domain}", domain, record=text), memory)
        verdicts.append(verdict_of(address, found))
    return await flatten(domain, parse(text), memory), tuple(verdicts)


def published(
    text: str, sending: Sending = BOTH, zone: dict[str, list[Any]] | None = None, domain: str = DOMAIN, **others: Any
) -> Published:
    """Return what the check would gather for a record."""
    reach, verdicts = asyncio.run(_ask(text, Zone.load(zone or {}), sending, domain))
    if not is_record(text):
        return Published(domain, texts=(text,) if text else (), verdicts=verdicts, **others)
    record = parse(text)
    return Published(domain, texts=(text,), record=record, reach=reach, verdicts=verdicts, **others)


def judged(text: str, sending: Sending = BOTH, zone: dict[str, list[Any]] | None = None, **others: Any) -> Judgement:
    return judge(published(text, sending, zone, **others), sending, NOW)


def remark_of(judgement: Judgement, code: str) -> Remark:
    (found,) = [remark for remark in judgement.remarks if remark.code == code]
    return found


def codes(judgement: Judgement) -> list[tuple[str, str]]:
    return [(remark.code, remark.severity) for remark in judgement.remarks]


def verdicts(judgement: Judgement) -> list[tuple[int, str, str]]:
    return [(cell.family, cell.verdict, cell.severity) for cell in judgement.cells]


def spf(text: str) -> list[Any]:
    return [{"TXT": text}]


def test_where_all_is_well_nothing_is_said() -> None:
    judgement = judged(GOOD)
    assert judgement.remarks == ()
    assert verdicts(judgement) == [(4, "pass", ""), (6, "pass", "")]
    assert judgement.cells[0].reason == f"{V4} by `ip4:{V4}`"
    assert judge_sources(BOTH) == ()


def test_1_a_source_that_the_record_denies_is_critical() -> None:
    judgement = judged("v=spf1 ip6:2a01:4f8::/32 -all")
    assert verdicts(judgement) == [(4, "fail", "critical"), (6, "pass", "")]
    assert codes(judgement) == [("not-authorised", "critical")]
    assert senders(published("v=spf1 ip6:2a01:4f8::/32 -all"), BOTH).passing == ((V6, "ip6:2a01:4f8::/32"),)
    found = remark_of(judgement, "not-authorised")
    assert found.message == f"`{V4}` sends for `example.org`, but the record ends in `-all`"
    assert found.advice.startswith(f"add `ip4:{V4}`")


@pytest.mark.parametrize(
    ("text", "said", "reason"),
    [
        (f"v=spf1 ip6:{V6}", "does not name it", f"{V4} by no term"),
        (f"v=spf1 -ip4:{V4} ip6:{V6} -all", f"denies it by `-ip4:{V4}`", f"{V4} by `-ip4:{V4}`"),
    ],
)
def test_1_the_term_that_denies_is_named(text: str, said: str, reason: str) -> None:
    judgement = judged(text)
    assert remark_of(judgement, "not-authorised").message.endswith(f"but the record {said}")
    assert judgement.cells[0].reason == reason


def test_1_of_several_ways_out_the_one_that_fails_is_named() -> None:
    other = ip_address("78.46.1.1")
    sending = Sending((SOURCE4, Source(4, other, "eth1", seen=(other,))))
    judgement = judged(f"v=spf1 ip4:{V4} -all", sending)
    assert [verdict for _, verdict, _ in verdicts(judgement)] == ["pass", "fail"]
    assert str(other) in remark_of(judgement, "not-authorised").message


@pytest.mark.parametrize(("ending", "severity"), [("~all", "error"), ("?all", "warning")])
def test_2_a_source_that_the_record_half_denies_is_less(ending: str, severity: str) -> None:
    found = remark_of(judged(f"v=spf1 ip6:{V6} {ending}"), "not-authorised")
    assert found.severity == severity
    assert f"add `ip4:{V4}`" in found.advice
    assert ("junk" in found.message) is (ending == "~all")


def test_3_the_link_local_literal_is_matched_with_the_interface_it_means() -> None:
    text = f"v=spf1 ip4:{V4} ip6:fe80::5054:8dff:fe9b:358d/64 -all"
    found = remark_of(judged(text), "link-local")
    assert found.severity == "critical"
    assert f"Its interface id `5054:8dff:fe9b:358d` is that of `{V6}` on eth0" in found.message
    assert found.advice == f"publish `ip6:{V6}` in the place of `ip6:fe80::5054:8dff:fe9b:358d/64`"
    elsewhere = replace(BOTH, held=(Held(V4, "eth0"), Held(V6, "wan6")))
    assert f"is that of `{V6}` on wan6" in remark_of(judged(text, elsewhere), "link-local").message
    held = replace(ONLY4, held=BOTH.held)
    assert remark_of(judged(text, held), "link-local").severity == "warning"
    assert remark_of(judged(text.replace("-all", f"ip6:{V6} -all")), "link-local").severity == "warning"


def test_3_without_such_an_interface_the_literal_is_to_be_taken_out() -> None:
    found = remark_of(judged(f"v=spf1 ip4:{V4} ip6:fe80::1234 -all"), "link-local")
    assert (found.severity, found.advice) == ("critical", "take it out: it can never match at a receiver")
    assert remark_of(judged(f"{GOOD[:-4]}ip4:169.254.1.1 -all"), "link-local").severity == "warning"


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ("ip4:192.168.1.10", "private"),
        ("ip4:100.64.0.9", "shared"),
        ("ip4:127.0.0.1", "loopback"),
        ("ip6:fd00::1", "unique-local"),
        ("ip6:2001:db8::1", "documentation"),
        ("ip6:ff02::1", "multicast"),
        ("ip6:::ffff:88.198.1.2", "v4-mapped"),
    ],
)
def test_4_what_never_matches_is_a_warning_and_next_to_what_passes_a_note(term: str, code: str) -> None:
    found = remark_of(judged(f"v=spf1 {term} -all"), code)
    assert found.severity == "warning"
    assert "take" in found.advice or "write `ip4:88.198.1.2`" in found.advice
    assert remark_of(judged(GOOD.replace("-all", f"{term} -all")), code).severity == "info"


def test_5_a_temporary_source_is_critical_even_if_it_passes() -> None:
    source = Source(6, TEMPORARY, "eth0", temporary=True, dynamic=True, rivals=2, seen=(TEMPORARY,))
    sending = Sending((SOURCE4, source), (Held(V4, "eth0"), Held(TEMPORARY, "eth0", temporary=True), Held(V6, "eth0")))
    (found,) = judge_sources(sending)
    assert (found.code, found.severity) == ("temporary-source", "critical")
    assert "net.ipv6.conf.eth0.use_tempaddr=0" in found.advice
    assert f"REMOTE_SMTP_INTERFACE = <; {V4} ; {V6}" in found.advice
    judgement = judged(f"v=spf1 ip4:{V4} ip6:2a01:4f8:9::/48 -all", sending)
    assert str(TEMPORARY) not in remark_of(judgement, "not-authorised").advice
    assert senders(published(GOOD, sending), sending).sends == (V4, V6)


def test_5_a_temporary_source_that_passes_today_is_still_not_published() -> None:
    source = Source(6, TEMPORARY, "eth0", temporary=True, seen=(TEMPORARY,))
    sending = Sending((source,), (Held(TEMPORARY, "eth0", temporary=True),))
    (found,) = judge_sources(sending)
    assert "pin" not in found.advice
    assert senders(published("v=spf1 -all", sending), sending).sends == ()
    (remark,) = [remark for remark in judged("v=spf1 -all", sending).remarks if remark.code == "ipv6-not-listed"]
    assert "do not publish this address" in remark.advice


@pytest.mark.parametrize(
    ("changed", "said"), [({"dynamic": True}, "leased and may change"), ({"rivals": 3}, "one of 3 that the kernel")]
)
def test_6_a_source_that_may_change_is_to_be_pinned(changed: dict[str, Any], said: str) -> None:
    sending = replace(BOTH, sources=(SOURCE4, replace(SOURCE6, **changed)))
    (found,) = judge_sources(sending)
    assert (found.code, found.severity) == ("unstable-source", "warning")
    assert said in found.message
    assert found.advice == f"pin it: REMOTE_SMTP_INTERFACE = <; {V4} ; {V6}"
    assert judge_sources(replace(BOTH, sources=(SOURCE4, replace(SOURCE6, **changed, pinned=True)))) == ()


@pytest.mark.parametrize(("ending", "severity"), [("-all", "critical"), ("~all", "error"), ("?all", "warning")])
def test_7_ipv6_that_no_term_knows_of_is_as_bad_as_its_verdict(ending: str, severity: str) -> None:
    judgement = judged(f"v=spf1 ip4:{V4} {ending}")
    found = remark_of(judgement, "ipv6-not-listed")
    assert found.severity == severity
    assert f"add `ip6:{V6}`" in found.advice
    assert "disable_ipv6 = true" in found.advice
    assert verdicts(judged(f"v=spf1 ip4:{V4} {ending}", ONLY4)) == [(4, "pass", ""), (6, "not used", "")]
    assert "ipv6-not-listed" not in dict(codes(judged(f"v=spf1 ip4:{V4} {ending}", ONLY4)))
    assert judged(f"v=spf1 ip4:{V4} {ending}", ONLY4).cells[1].reason == "no IPv6 route"


PROXIED: dict[str, list[Any]] = {DOMAIN: [{"A": "104.16.1.2"}, {"AAAA": "2606:4700::6810:102"}]}


def test_8_an_a_that_leads_to_a_proxy_is_critical_where_it_was_relied_on() -> None:
    judgement = judged("v=spf1 a -all", zone=PROXIED)
    found = remark_of(judgement, "leads-elsewhere")
    assert found.severity == "critical"
    assert "`a` now authorises `104.16.1.2/32` (Cloudflare's" in found.message
    assert "`ip4:` and `ip6:`" in found.advice and "`a:`" in found.advice
    found = remark_of(judged(GOOD.replace("-all", "a -all"), zone=PROXIED), "leads-elsewhere")
    assert found.severity == "error"


def test_8_the_replacement_names_the_addresses_in_the_place_of_the_proxy() -> None:
    assert repair(published("v=spf1 a -all", zone=PROXIED), BOTH)[0].text == GOOD


def test_8_a_name_of_another_server_is_only_blamed_where_ours_is_missing() -> None:
    zone: dict[str, list[Any]] = {DOMAIN: [{"MX": [1, "mx.example.net"]}], "mx.example.net": [{"A": "78.46.1.1"}]}
    zone["proxied.example.net"] = [{"A": "104.16.1.2"}]
    assert remark_of(judged("v=spf1 mx -all", zone=zone), "leads-elsewhere").severity == "critical"
    assert judged(GOOD.replace("-all", "mx -all"), zone=zone).remarks == ()
    text = GOOD.replace("-all", "include:x.example.net mx:in.example.net -all")
    zone |= {
        "x.example.net": spf("v=spf1 a:proxied.example.net -all"),
        "in.example.net": [{"MX": [1, "proxied.example.net"]}],
    }
    assert judged(text, zone=zone).remarks == ()


def test_8_a_name_of_another_server_is_no_worse_than_what_becomes_of_the_mail() -> None:
    zone: dict[str, list[Any]] = {DOMAIN: [{"MX": [1, "mx.example.net"]}], "mx.example.net": [{"A": "78.46.1.1"}]}
    judgement = judged(f"v=spf1 mx ip6:{V6} ~all", zone=zone)
    assert codes(judgement) == [("not-authorised", "error"), ("leads-elsewhere", "error")]
    proxied = judged("v=spf1 a ?all", zone=PROXIED)
    assert remark_of(proxied, "leads-elsewhere").severity == "error"


def test_8_a_name_without_ipv6_is_not_to_blame_for_a_missing_ipv6_address() -> None:
    zone: dict[str, list[Any]] = {"web.example.net": [{"A": "78.46.1.1"}]}
    judgement = judged(f"v=spf1 ip4:{V4} a:web.example.net -all", zone=zone)
    assert codes(judgement) == [("ipv6-not-listed", "critical")]


def test_9_an_old_address_is_critical_while_the_new_one_is_missing() -> None:
    former = replace(BOTH, former=(ip_address("78.46.1.1"),))
    judgement = judged(f"v=spf1 ip4:78.46.1.1 ip6:{V6} -all", former, ttl=3600)
    assert codes(judgement) == [("not-authorised", "critical"), ("not-ours", "critical")]
    found = remark_of(judgement, "not-ours")
    assert "this host no longer has it" in found.message
    assert found.advice == "take it out; resolvers may know the record as it is for 60 min more"


@pytest.mark.parametrize(("ending", "severity"), [("~all", "error"), ("?all", "warning")])
def test_9_an_old_address_is_no_worse_than_what_becomes_of_the_mail(ending: str, severity: str) -> None:
    former = replace(BOTH, former=(ip_address("78.46.1.1"),))
    judgement = judged(f"v=spf1 ip4:78.46.1.1 ip6:{V6} {ending}", former)
    assert codes(judgement)[:2] == [("not-authorised", severity), ("not-ours", severity)]


def test_9_an_address_that_this_host_never_had_is_a_note_and_not_to_be_taken_out() -> None:
    found = remark_of(judged(GOOD.replace("-all", "ip4:78.46.1.1 -all")), "not-ours")
    assert found.severity == "info"
    assert found.message == "`ip4:78.46.1.1` is authorised, and is no address of this host: another server of yours?"
    assert found.advice.startswith("if so, list it in public_addresses")
    judgement = judged(f"v=spf1 ip4:78.46.1.1 ip6:{V6} ~all")
    assert codes(judgement) == [("not-authorised", "error"), ("not-ours", "info")]
    assert remark_of(judgement, "not-ours").message.endswith("another server of yours, or what this host had before?")


def test_9_forty_addresses_of_others_are_one_remark_of_each_family() -> None:
    text = GOOD.replace("-all", " ".join(f"ip4:78.46.1.{n} ip6:2a01:4f9::{n}" for n in range(1, 41)) + " -all")
    four, six = (remark for remark in judged(text).remarks if remark.code == "not-ours")
    assert four.message.startswith("`ip4:78.46.1.1`, `ip4:78.46.1.2`, `ip4:78.46.1.3` and 37 more are authorised")
    assert text[four.start : four.end] == "ip4:78.46.1.1"
    assert text[six.start : six.end] == "ip6:2a01:4f9::1"


def test_9_an_old_address_beside_the_new_one_is_a_warning() -> None:
    text = GOOD.replace("-all", "ip4:78.46.1.1 -all")
    former = replace(BOTH, former=(ip_address("78.46.1.1"), V4))
    found = remark_of(judged(text, former), "not-ours")
    assert found.severity == "warning"
    assert "this host no longer has it" in found.message
    assert "public_addresses" not in found.advice
    mended, asked = repair(published(text, former), former)
    assert remark_of(judged(text, former), "not-ours").advice == "take it out"
    assert mended.text == GOOD
    assert [item.passes for item in asked if str(item.address) == "78.46.1.1"] == [False]
    assert repair(published(text), BOTH)[0].text == text


@pytest.mark.parametrize("term", ["ip4:78.46.1.0/24", "?ip4:78.46.1.1", "ip6:2a01:4f9::/48", f"ip6:{V6}/64"])
def test_9_networks_and_what_does_not_pass_are_no_addresses_of_a_host(term: str) -> None:
    assert judged(GOOD.replace("-all", f"{term} -all")).remarks == () or term.startswith(f"ip6:{V6}")
    assert "not-ours" not in dict(codes(judged(GOOD.replace("-all", f"{term} -all"))))


def test_9_what_the_operator_declares_is_his_own() -> None:
    declared = replace(BOTH, declared=(ip_network("78.46.1.0/24"),))
    assert judged(GOOD.replace("-all", "ip4:78.46.1.1 -all"), declared).remarks == ()


def test_9_an_old_prefix_of_the_same_interface_is_replaced() -> None:
    found = remark_of(judged(f"v=spf1 ip4:{V4} ip6:2a01:4f8:9:9:5054:8dff:fe9b:358d -all"), "not-ours")
    assert (found.severity, found.advice) == (
        "critical",
        f"write `ip6:{V6}` in its place: the same interface's address of today",
    )


def many(count: int) -> dict[str, list[Any]]:
    return {f"{n}.example.net": spf("v=spf1 ip4:78.46.9.9 -all") for n in range(count)}


INCLUDES = " ".join(f"include:{n}.example.net" for n in range(11))


def test_10_too_many_lookups_break_the_record_for_everybody() -> None:
    judgement = judged(f"v=spf1 {INCLUDES} {GOOD[7:]}", zone=many(11))
    assert verdicts(judgement) == [(4, "permerror", "critical"), (6, "permerror", "critical")]
    found = remark_of(judgement, "too-many-lookups")
    assert found.severity == "critical"
    assert "need 11 look-ups" in found.message and "`include:0.example.net` 1" in found.message
    assert "take out `include:0.example.net`" in found.advice


@pytest.mark.parametrize(
    ("terms", "zone", "code"),
    [
        ("a:0.example.net a:1.example.net a:2.example.net", {}, "too-many-voids"),
        ("mx", {DOMAIN: [{"MX": [n, f"m{n}.example.org"]} for n in range(11)]}, "broken-term"),
        ("include:l.example.net", {"l.example.net": spf("v=spf1 include:l.example.net -all")}, "broken-term"),
    ],
)
def test_10_voids_exchangers_and_loops_break_it_too(terms: str, zone: dict[str, list[Any]], code: str) -> None:
    judgement = judged(f"v=spf1 {terms} {GOOD[7:]}", zone=zone)
    assert judgement.cells[0].verdict == "permerror"
    assert (code, "critical") in codes(judgement)


def test_10_what_breaks_for_one_sender_alone_is_told_in_its_words() -> None:
    judgement = judged("v=spf1 include:%{l}.gone.example.net -all")
    assert verdicts(judgement)[0] == (4, "permerror", "critical")
    found = remark_of(judgement, "broken")
    assert found.severity == "critical"
    assert "x.gone.example.net does not exist" in found.message


def test_11_a_limit_that_only_others_meet_is_a_warning() -> None:
    judgement = judged(f"{GOOD[:-5]} {INCLUDES} -all", zone=many(11))
    assert verdicts(judgement) == [(4, "pass", ""), (6, "pass", "")]
    found = remark_of(judgement, "early-match")
    assert found.severity == "warning"
    assert "all other senders meet it" in found.message


def test_11_where_nothing_is_known_of_ours_the_limit_is_critical() -> None:
    sending = Sending((Source(4, ip_address("10.0.0.1"), "eth0", problem="behind NAT"),))
    assert ("too-many-lookups", "critical") in codes(judged(f"v=spf1 {INCLUDES} -all", sending, zone=many(11)))


def test_12_two_records_are_critical_and_are_made_one() -> None:
    texts = (f"v=spf1 ip4:{V4} -all", f"v=spf1 ip6:{V6} ra=x -all")
    broken = (Verdict(V4, Result.PERMERROR, message="two"), Verdict(V6, Result.PERMERROR, message="two"))
    found = Published(DOMAIN, texts=texts, verdicts=broken)
    remark = remark_of(judge(found, BOTH, NOW), "two-records")
    assert (remark.severity, remark.advice) == ("critical", "publish one TXT record that has the terms of all")
    assert repair(found, BOTH)[0].text == GOOD.replace("-all", "ra=x -all")
    beside = replace(found, texts=(texts[0], "spf1 a", texts[1]))
    assert repair(beside, BOTH)[0].text == GOOD.replace("-all", "ra=x -all")


def test_13_an_include_of_nothing_is_critical() -> None:
    found = published(f"v=spf1 include:gone.example.net {GOOD[7:]}")
    judgement = judge(found, BOTH, NOW)
    assert judgement.cells[0].verdict == "permerror"
    remark = remark_of(judgement, "dead-include")
    assert remark.severity == "critical"
    assert "`include:gone.example.net`: gone.example.net does not exist" in remark.message
    assert "take out `include:gone.example.net`" in remark.advice
    assert repair(found, BOTH)[0].text == GOOD


def test_13_a_dead_include_far_below_costs_no_provider_its_place() -> None:
    zone = {"p.example.net": spf("v=spf1 include:gone.example.net ip4:78.46.1.1 -all")}
    text = f"{GOOD[:-5]} include:p.example.net -all"
    found = published(text, zone=zone)
    assert ("dead-include", "critical") in codes(judge(found, BOTH, NOW))
    assert repair(found, BOTH)[0].text == text


def test_14_a_helo_name_is_judged_by_a_record_of_its_own() -> None:
    name = "host1.example.org"
    none = judged("", identity=HELO, domain=name)
    assert codes(none) == [("helo-no-record", "info")]
    assert verdicts(none) == [(4, "none", "info"), (6, "none", "info")]
    assert remark_of(none, "helo-no-record").advice == f"publish `v=spf1 {GOOD[7:]}` at {name}"
    denied = judged(f"v=spf1 ip6:{V6} -all", identity=HELO, domain=name)
    assert codes(denied) == [("helo-not-authorised", "error")]
    assert f"add `ip4:{V4}`" in remark_of(denied, "helo-not-authorised").advice
    assert "bounces" in remark_of(denied, "helo-not-authorised").message


@pytest.mark.parametrize(
    ("addresses", "advice"),
    [
        ((V4, V6), "publish `v=spf1 a -all` at host1.example.org"),
        ((V4,), f"publish `v=spf1 {GOOD[7:]}` at host1.example.org; its A and AAAA records lead to {V4}, and should"),
        ((), f"publish `v=spf1 {GOOD[7:]}` at host1.example.org; its A and AAAA records are missing, and should"),
    ],
)
def test_14_for_a_helo_name_a_is_proposed_where_it_leads_here(addresses: tuple[Any, ...], advice: str) -> None:
    none = judged("", identity=HELO, domain="host1.example.org", addresses=addresses)
    assert remark_of(none, "helo-no-record").advice.startswith(advice)


def test_14_a_temporary_address_is_not_proposed_for_a_helo_name() -> None:
    source = Source(6, TEMPORARY, "eth0", temporary=True, seen=(TEMPORARY,))
    none = judged("", Sending((source,)), identity=HELO, domain="host1.example.org", addresses=(TEMPORARY,))
    assert remark_of(none, "helo-no-record").advice.startswith("let mail leave from an address that stays")


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ({}, "the A record of host1.example.org, which is missing"),
        ({"A": "78.46.1.1"}, "which leads to 78.46.1.1, lead to 88.198.1.2"),
    ],
)
def test_14_an_a_of_the_helo_name_that_leads_elsewhere_is_named(zone: dict[str, str], said: str) -> None:
    name = "host1.example.org"
    judgement = judged("v=spf1 a -all", ONLY4, {name: [zone]} if zone else {}, identity=HELO, domain=name)
    assert said in remark_of(judgement, "helo-not-authorised").advice
    plain = judged(f"v=spf1 ip6:{V6} -all", ONLY4, identity=HELO, domain=name)
    assert "A record" not in remark_of(plain, "helo-not-authorised").advice
    loose = Sending((Source(6, TEMPORARY, "eth0", temporary=True, seen=(TEMPORARY,)),))
    unstable = judged("v=spf1 a -all", loose, identity=HELO, domain=name)
    assert "AAAA" not in remark_of(unstable, "helo-not-authorised").advice


@pytest.mark.parametrize(("name", "code"), [("host1", "helo-unqualified"), ("[88.198.1.2]", "helo-literal")])
def test_14_a_helo_that_is_no_name_is_a_warning(name: str, code: str) -> None:
    judgement = judged("", identity=HELO, domain=name)
    assert codes(judgement) == [(code, "warning")]
    assert "/etc/hosts" in judgement.remarks[0].advice
    assert verdicts(judgement)[0] == (4, "none", "warning")


def test_14_a_short_name_is_a_fault_of_helo_alone() -> None:
    assert "helo-unqualified" not in dict(codes(judged("", domain="host1")))


def test_14_nothing_of_a_helo_name_is_critical() -> None:
    judgement = judged("v=spf1 ip4:x -all", identity=HELO, domain="host1.example.org")
    assert verdicts(judgement)[0] == (4, "permerror", "error")
    assert codes(judgement) == [("syntax", "error")]


def test_15_a_redirect_beside_all_is_a_warning() -> None:
    found = remark_of(judged(GOOD.replace("-all", "redirect=x.example.org -all")), "redirect-ignored")
    assert (found.severity, found.advice) == ("warning", "take out the one that you do not mean")


@pytest.mark.parametrize(
    ("text", "code", "severity", "advice"),
    [
        (f"{GOOD} mx", "after-all", "warning", "before `all`"),
        (GOOD[:-5], "no-all", "warning", "-all"),
        (GOOD.replace("-all", "+all"), "all-pass", "critical", "`-all` or `~all`"),
        (GOOD.replace("-all", "ip4:0.0.0.0/0 -all"), "too-wide", "critical", "real prefix length"),
        (GOOD.replace("-all", "ip4:88.0.0.0/7 -all"), "too-wide", "critical", "real prefix length"),
    ],
)
def test_16_a_policy_that_is_none_is_told(text: str, code: str, severity: str, advice: str) -> None:
    found = remark_of(judged(text, zone={DOMAIN: [{"MX": [1, DOMAIN]}, {"A": str(V4)}]}), code)
    assert found.severity == severity
    assert advice in found.advice


def test_17_strings_that_are_glued_together_are_critical_where_a_term_breaks() -> None:
    strings = (f"v=spf1 ip4:{V4}".encode(), f"ip6:{V6} -all".encode())
    found = judged(b"".join(strings).decode(), strings=strings)
    assert remark_of(found, "joined").severity == "critical"
    assert "`·`" in remark_of(found, "joined").message
    long = f"{GOOD[:-5]} x={'y' * 500} -all"
    assert {("long", "warning"), ("long-string", "warning")} <= set(codes(judged(long)))


def test_18_an_answer_that_needs_tcp_where_tcp_is_refused_is_an_error() -> None:
    found = remark_of(judged(GOOD, views=Views(refusing=("ns3.example.net",), size=4295)), "answer-too-large")
    assert found.severity == "error"
    assert "4295 bytes" in found.message and "ns3.example.net" in found.message
    assert "TCP" in found.advice


def test_19_a_macro_is_a_note() -> None:
    zone: dict[str, list[Any]] = {}
    found = remark_of(judged(GOOD.replace("-all", "exists:%{i}.x.example.org -all"), zone=zone), "macro")
    assert found.severity == "info"
    assert "exists:%{i}.x.example.org" in found.message


def test_20_ptr_is_a_warning() -> None:
    found = remark_of(judged(GOOD.replace("-all", "ptr -all")), "ptr")
    assert found.severity == "warning"
    assert "`ip4:` and `ip6:`" in found.advice


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (f"v=spf1 ipv4:{V4} -all", f"did you mean `ip4:{V4}`?"),
        (f"v=spf1 ip4:{V6} -all", f"did you mean `ip6:{V6}`?"),
        (f"v=spf1 ip4:{V4}-all", f"did you mean `ip4:{V4} -all`?"),
        (f"v=spf1 ip4:{V4} “-all”", "did you mean `-all`?"),
        ("v=spf1 ip4:mail.example.org -all", "did you mean `a:mail.example.org`?"),
    ],
)
def test_21_a_slip_is_critical_and_what_was_meant_is_named(text: str, advice: str) -> None:
    judgement = judged(text)
    assert judgement.cells[0].verdict == "permerror"
    found = remark_of(judgement, "syntax")
    assert (found.severity, found.advice) == ("critical", advice)


def test_21_a_version_that_is_none_is_critical() -> None:
    judgement = judged(f"v=spf ip4:{V4} -all")
    assert verdicts(judgement)[0] == (4, "none", "warning")
    found = remark_of(judgement, "version")
    assert found.severity == "critical"
    assert "v=spf1" in found.advice
    assert repair(published(f"v=spf ip4:{V4} ra=x -all"), BOTH)[0].text == f"v=spf1 ip4:{V4} ip6:{V6} ra=x -all"


def test_21_of_thousands_of_faults_the_worst_are_told() -> None:
    text = " ".join(("v=spf1", *(f"ip4:10.0.{n}.0/24" for n in range(99)), *(f"bad{n}" for n in range(49)), "+all"))
    judgement = judged(text)
    assert [severity for _, severity in codes(judgement)] == ["critical"] * 50
    assert len(repair(published(text), BOTH)[0].changes) == 50


def test_22_a_record_of_the_type_spf_alone_is_critical() -> None:
    judgement = judged("", of_type_spf=True)
    assert codes(judgement) == [("type-spf", "critical")]
    assert "TXT" in judgement.remarks[0].advice


def test_23_servers_that_differ_are_a_warning_and_an_old_answer_counts_down() -> None:
    views = Views(differing=("ns2.example.net",), old_until=NOW + timedelta(minutes=42))
    judgement = judged(GOOD, views=views)
    found = remark_of(judgement, "servers-differ")
    assert (found.severity, "serials" in found.advice) == ("warning", True)
    assert "ns2.example.net" in found.message
    old = remark_of(judgement, "old-answer")
    assert old.severity == "info"
    assert "until 15:42" in old.message and "42 min more" in old.message
    assert judged(GOOD, views=Views(old_until=NOW)).remarks == ()


def test_24_another_view_inside_is_a_warning_and_does_not_judge() -> None:
    judgement = judged(GOOD, views=Views(split=True))
    assert codes(judgement) == [("split-horizon", "warning")]
    assert verdicts(judgement) == [(4, "pass", ""), (6, "pass", "")]


def failing(count: int, minutes: int, ttl: int = 0) -> Judgement:
    good = (Result.PASS, NOW - timedelta(hours=3))
    failures = Failures(count, NOW - timedelta(minutes=minutes), "time-out", ttl, good)
    return judge(Published(DOMAIN, failures=failures), BOTH, NOW)


@pytest.mark.parametrize(
    ("count", "minutes", "ttl", "severity"),
    [
        (1, 0, 0, "unknown"),
        (2, 60, 0, "unknown"),
        (3, 15, 0, "unknown"),
        (3, 16, 0, "warning"),
        (9, 16, 3600, "unknown"),
        (9, 61, 3600, "warning"),
    ],
)
def test_25_a_dns_that_fails_is_unknown_until_it_lasts(count: int, minutes: int, ttl: int, severity: str) -> None:
    judgement = failing(count, minutes, ttl)
    assert codes(judgement) == [("dns-failed", severity)]
    assert verdicts(judgement) == [(4, "unknown", severity), (6, "unknown", severity)]
    assert "the last good verdict, 3 h old, is pass" in judgement.remarks[0].message
    assert "time-out" in judgement.remarks[0].message
    assert "name servers" in judgement.remarks[0].advice


def test_25_what_cannot_be_seen_is_not_replaced() -> None:
    mended, asked = repair(Published(DOMAIN, failures=Failures(1, NOW)), BOTH)
    assert (mended.text, asked) == ("", ())


def test_25_a_record_that_was_never_seen_is_told_so() -> None:
    judgement = judge(Published(DOMAIN, failures=Failures(1, NOW)), BOTH, NOW)
    assert judgement.cells[0].reason == "no answer; it never was judged before"


def test_25_a_single_temperror_is_unknown() -> None:
    judgement = judged("v=spf1 a:slow.example.net -all", zone={"slow.example.net": ["TIMEOUT"]})
    assert {(verdict, severity) for _, verdict, severity in verdicts(judgement)} == {("unknown", "unknown")}
    assert "slow.example.net" in judgement.cells[0].reason
    assert {severity for _, severity in codes(judgement)} == {"unknown"}


def test_27_behind_a_smarthost_ones_own_addresses_alone_are_an_error() -> None:
    behind = replace(BOTH, smarthost="smtp.example.net")
    judgement = judged(GOOD, behind)
    assert verdicts(judgement) == [(4, "not required", ""), (6, "not required", "")]
    assert codes(judgement) == [("smarthost-not-listed", "error")]
    assert "`include:`" in judgement.remarks[0].advice
    loose = replace(SOURCE6, dynamic=True)
    assert judge_sources(replace(behind, sources=(loose,))) == ()


def test_27_behind_a_smarthost_the_record_need_not_name_this_host() -> None:
    behind = replace(BOTH, smarthost="smtp.example.net")
    text = "v=spf1 include:_spf.example.net -all"
    zone = {"_spf.example.net": spf("v=spf1 ip4:78.46.0.0/15 -all")}
    assert judged(text, behind, zone=zone).remarks == ()
    found = published(text, behind, zone=zone)
    assert repair(found, behind)[0].text == text
    assert repair(published("", behind), behind)[0].text == ""


@pytest.mark.parametrize("term", ["ip4:88.198.1.0/24", "ip4:78.46.1.1", "exists:%{i}.x.example.net"])
def test_27_behind_a_smarthost_whatever_may_be_the_providers_is_let_be(term: str) -> None:
    behind = replace(BOTH, smarthost="smtp.example.net")
    assert "smarthost-not-listed" not in dict(codes(judged(f"v=spf1 ip4:{V4} {term} -all", behind)))
    assert ("smarthost-not-listed", "error") in codes(judged("v=spf1 -all", behind))
    assert remark_of(judged("v=spf1 -all", behind), "smarthost-not-listed").message.endswith("authorises nobody")
    assert codes(judged(f"v=spf1 ip4:{V4} nonsense -all", behind)) == [("syntax", "critical")]


def test_28_a_private_source_that_nobody_saw_from_outside_is_unknown() -> None:
    inside = Source(4, ip_address("10.0.0.2"), "eth0", problem="it is behind a translation elsewhere")
    sending = Sending((inside, UNUSED6))
    (found,) = judge_sources(sending)
    assert (found.code, found.severity) == ("unseen-source", "unknown")
    assert found.advice == "set public_addresses, or allow the EHLO echo"
    judgement = judged("v=spf1 ip4:78.46.1.0/24 -all", sending)
    assert verdicts(judgement) == [(4, "unknown", "unknown"), (6, "not used", "")]
    assert judgement.remarks == ()


def test_28_a_source_without_a_reason_has_one_all_the_same() -> None:
    sending = Sending((Source(4, ip_address("10.0.0.2")), Source(6)))
    judgement = judged("v=spf1 -all", sending)
    assert [cell.reason for cell in judgement.cells] == ["what receivers see is not known", "no mail leaves over IPv6"]


def test_28_a_translated_source_is_judged_by_what_receivers_see() -> None:
    seen = (ip_address("78.46.1.1"), ip_address("78.46.1.2"))
    sending = Sending((Source(4, ip_address("10.0.0.2"), "eth0", seen=seen),))
    assert verdicts(judged("v=spf1 ip4:78.46.1.0/24 -all", sending)) == [(4, "pass", "")]
    judgement = judged("v=spf1 ip4:78.46.1.1 -all", sending)
    assert verdicts(judgement) == [(4, "fail", "critical")]
    assert "78.46.1.2" in remark_of(judgement, "not-authorised").message
    mended, _ = repair(published("v=spf1 ip4:78.46.1.1 -all", sending), sending)
    assert mended.text == "v=spf1 ip4:78.46.1.1 ip4:78.46.1.2 -all"


def test_28_what_was_not_asked_about_is_not_said_to_pass() -> None:
    known = replace(published(GOOD), verdicts=(Verdict(V4, Result.PASS, "a"),))
    assert verdicts(judge(known, BOTH, NOW)) == [(4, "pass", ""), (6, "unknown", "unknown")]


def test_29_without_a_record_one_is_proposed() -> None:
    found = published("")
    judgement = judge(found, BOTH, NOW)
    assert verdicts(judgement) == [(4, "none", "warning"), (6, "none", "warning")]
    remark = remark_of(judgement, "no-record")
    assert remark.severity == "warning"
    assert "SPF or DKIM" in remark.message
    assert repair(found, BOTH)[0].text == GOOD


def test_29_another_txt_record_is_no_record_and_is_not_mended() -> None:
    found = replace(published(""), texts=("google-site-verification=x",))
    assert codes(judge(found, BOTH, NOW)) == [("no-record", "warning")]
    assert repair(found, BOTH)[0].text == GOOD


@pytest.mark.parametrize(
    ("envelope", "header", "told"),
    [
        ("example.org", "example.net", True),
        ("host1.example.org", "example.org", False),
        ("example.org", "news.EXAMPLE.org", False),
        ("a.example.org", "b.example.org", False),
        ("example.org", "example.org", False),
    ],
)
def test_30_an_envelope_of_another_organisation_is_a_note(envelope: str, header: str, told: bool) -> None:
    judgement = judged(GOOD, domain=envelope, sender=header)
    assert codes(judgement) == [("not-aligned", "info")] * told
    if told:
        assert "DKIM for example.net" in judgement.remarks[0].advice
        assert codes(judged("", domain=envelope, sender=header)) == [("no-record", "warning"), ("not-aligned", "info")]


# The blog's own case, from end to end


def test_the_record_of_the_blog_is_found_explained_and_repaired() -> None:
    v4 = ip_address("203.0.113.10")
    v6 = ip_address("2001:db8:1::5054:8dff:fe9b:358d")
    sending = Sending(
        (Source(4, v4, "eth0", seen=(v4,)), Source(6, v6, "eth0", seen=(v6,))), (Held(v4, "eth0"), Held(v6, "eth0"))
    )
    text = "v=spf1 ip4:203.0.113.10 ip6:fe80::5054:8dff:fe9b:358d/64 -all"
    found = published(text, sending)
    judgement = judge(found, sending, NOW)
    assert verdicts(judgement) == [(4, "pass", ""), (6, "fail", "critical")]
    critical = [code for code, severity in codes(judgement) if severity == "critical"]
    assert critical == ["link-local", "ipv6-not-listed"]
    assert remark_of(judgement, "link-local").advice.startswith(f"publish `ip6:{v6}`")
    mended, asked = repair(found, sending)
    assert mended.text == f"v=spf1 ip4:203.0.113.10 ip6:{v6} -all"
    after = published(mended.text, sending)
    assert {verdict for _, verdict, _ in verdicts(judge(after, sending, NOW))} == {"pass"}
    assert judge(after, sending, NOW).remarks == ()
    assert [question.passes for question in asked] == [True, True, False, False, False, False]
    for question in asked:
        query = Query(question.address, f"x@{DOMAIN}", DOMAIN, record=mended.text)
        result = asyncio.run(check_host(query, Memory(Zone.load({})))).result
        assert (result is Result.PASS) is question.passes


# Facts


def test_the_decisive_term_is_that_of_the_domains_own_record() -> None:
    zone = {"x.example.net": spf(f"v=spf1 ip4:{V4} -all"), "r.example.net": spf("v=spf1 include:x.example.net ~all")}
    for text, term in (
        ("v=spf1 mx include:x.example.net -all", "include:x.example.net"),
        ("v=spf1 mx redirect=r.example.net", "redirect=r.example.net"),
        (f"v=spf1 +ip4:{V4} -all", f"+ip4:{V4}"),
    ):
        known = published(text, ONLY4, zone)
        assert known.verdicts == (Verdict(V4, Result.PASS, term),)
        assert senders(known, ONLY4).passing == ((V4, term),)
        assert repair(known, ONLY4)[0].text == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d"), (200_000, "2 d")],
)
def test_a_span_of_time_has_one_unit(seconds: int, text: str) -> None:
    assert shown_age(seconds) == text


def test_both_identities_have_words() -> None:
    assert (MAIL_FROM, HELO) == ("mailfrom", "helo")
    assert judged(GOOD).identity == MAIL_FROM
