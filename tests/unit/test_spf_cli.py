"""The commands `agentctl spf …`: what they ask, what they print, what they make of foreign words. DNS is in memory."""

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from agent.cli import blocks, evaluate, reflector, spf, verify
from agent.host.mail.exim_mainlog import LINE
from agent.model.errors import AgentError, Exit
from agent.spf.answers import Answer
from agent.spf.session import Budget
from tests.spf.zone import Memory, Zone

ZONE: dict[str, list[Any]] = {
    "example.org": [
        {"TXT": "v=spf1 mx include:inner.example.net -all exp=why.example.org"},
        {"MX": [10, "mx.example.org"]},
    ],
    "mx.example.org": [{"A": "192.0.2.5"}],
    "inner.example.net": [{"TXT": "v=spf1 ip6:2001:db8::/32 ?all"}],
    "why.example.org": [{"TXT": "%{i} is none of ours"}],
    "host1.example.org": [{"TXT": "v=spf1 a -all"}, {"A": "192.0.2.5"}],
    "down.example": ["TIMEOUT"],
}
TOKEN = "0123456789abcdef"
ARRIVAL = f"2026-11-22 16:00:00 1vMPQr-0000Ab-2C <= u@example.org U=u P=local S=400 id={TOKEN}@spf-verify.invalid"
GONE = (
    "2026-11-22 16:00:01 1vMPQr-0000Ab-2C => spf-verify+x@r.example R=dnslookup T=remote_smtp S=500 "
    'H=r.example [198.51.100.26] I=[203.0.113.10]:40000 C="250 2.0.0 client=203.0.113.10 spf=pass helo=none for mail '
    'from example.org by ip4:203.0.113.10; for helo host1"'
)


def options(**given: Any) -> Namespace:
    usual = {"ip": "192.0.2.5", "mail_from": "me@example.org", "helo": "host1.example.org"}
    return Namespace(**(usual | {"record": None, "nameserver": None, "json": True} | given))


def judged(**given: Any) -> dict[str, Any]:
    """Return the JSON of `agentctl spf evaluate` over the zone in memory."""
    query = evaluate.query_of(options(**given))
    return asyncio.run(evaluate.evaluate(query, Memory(Zone.load(ZONE))))


def shown(data: dict[str, Any]) -> str:
    return blocks.write(evaluate.screen(data))


# evaluate


def test_the_way_to_the_verdict_is_a_tree_with_what_dns_said() -> None:
    lines = shown(judged()).split("\n")
    assert lines[:2] == [
        "pass, by `mx` of example.org",
        "  pass      example.org: v=spf1 mx include:inner.example.net -all",
    ]
    assert lines[3:] == [
        "    match     mx",
        "        MX example.org: 10 mx.example.org",
        "        A mx.example.org: 192.0.2.5",
        "1 of 10 terms that need DNS, 0 of 2 without an answer; this may be kept for 300",
        "s",
    ]


def test_an_include_is_a_branch_of_its_own() -> None:
    text = shown(judged(ip="2001:db8::7"))
    assert (
        "    match     include:inner.example.net\n      pass      inner.example.net: v=spf1 ip6:2001:db8::/32" in text
    )
    assert "        match     ip6:2001:db8::/32\n" in text


def test_the_words_of_a_domain_are_told() -> None:
    data = judged(ip="198.51.100.1")
    assert (data["result"], data["explanation"]) == ("fail", "198.51.100.1 is none of ours")
    assert "the domain says: 198.51.100.1 is none of ours" in shown(data)


def test_a_record_cannot_command_a_terminal() -> None:
    data = judged(record="v=spf1 \x1b[31mred \u202e include:\u202e -all")
    assert data["result"] == "permerror" and "\\x1b[31mred" in shown(data)
    assert not {"\x1b", "\u202e"} & set(f"{data}{shown(data)}")


def test_json_has_what_is_promised() -> None:
    data = judged()
    assert set(data) == {
        *("v", "result", "explanation", "matched", "problem", "ttl", "lookups", "voids", "query", "trace", "remarks")
    }
    assert data["matched"] == {"domain": "example.org", "term": "mx", "start": 7, "end": 9}
    assert set(data["trace"][0]) == {"depth", "domain", "start", "end", "text", "verdict", "lookups"}
    assert set(data["trace"][0]["lookups"][0]) == {"kind", "name", "outcome", "data", "ttl", "reason"}
    assert data["query"] == {
        "ip": "192.0.2.5",
        "mail_from": "me@example.org",
        "helo": "host1.example.org",
        "record": None,
    }


def test_a_bounce_is_judged_by_the_name_of_the_host() -> None:
    assert judged(mail_from="<>")["trace"][0]["domain"] == "host1.example.org"


def test_a_record_is_judged_before_it_is_published_and_pointed_into() -> None:
    data = judged(record="v=spf1 ip4:88.198.1.2 ip6:fe80::1 ?all", ip="88.198.1.2")
    assert data["result"] == "pass" and data["trace"][0]["lookups"] == []
    assert [remark["code"] for remark in data["remarks"]] == ["link-local", "all-neutral"]
    lines = shown(data).split("\n")
    place = lines.index("  v=spf1 ip4:88.198.1.2 ip6:fe80::1 ?all")
    assert lines[place + 1] == f"{'':24}^^^^^^^^^^^"


def test_the_fault_that_breaks_a_record_is_pointed_at_also_far_into_it() -> None:
    far = "v=spf1 " + "ip4:192.0.2.1 " * 20 + "ipv4:192.0.2.9 -all"
    lines = shown(judged(record=far, ip="198.51.100.1")).split("\n")
    caret = next(number for number, line in enumerate(lines) if "^" in line)
    first, width = lines[caret].index("^"), lines[caret].count("^")
    assert lines[caret - 1][first : first + width] == "ipv4:192.0.2.9"
    assert "permerror" in lines[0]


def test_a_text_that_is_no_record_is_none_and_told() -> None:
    data = judged(record="spf1 -all")
    assert data["result"] == "none" and data["remarks"][0]["code"] == "version"


@pytest.mark.parametrize(
    "given", [{"ip": "no"}, {"ip": "192.0.2.0/24"}, {"mail_from": "", "helo": ""}, {"mail_from": "<>", "helo": ""}]
)
def test_what_cannot_be_asked_is_a_mistake_of_the_caller(given: dict[str, str]) -> None:
    with pytest.raises(AgentError) as caught:
        evaluate.query_of(options(**given))
    assert caught.value.exit_status == Exit.USAGE


def test_the_exit_status_tells_a_pass_from_a_no_from_an_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, servers: object) -> None:
            self.memory = Memory(Zone.load(ZONE))

        async def ask(self, kind: str, name: str, _budget: Budget) -> Answer[Any]:
            answer: Answer[Any] = await getattr(self.memory, kind.lower())(name)
            return answer

    monkeypatch.setattr(evaluate, "Recursive", Fake)
    assert evaluate.spf_evaluate(options()) == Exit.CLEAN
    assert evaluate.spf_evaluate(options(ip="198.51.100.1")) == Exit.FINDINGS
    assert evaluate.spf_evaluate(options(mail_from="x@down.example")) == Exit.UNCHECKED
    with pytest.raises(AgentError) as caught:
        evaluate.spf_evaluate(options(nameserver="ns.example.org"))
    assert caught.value.exit_status == Exit.USAGE


def test_a_record_that_needs_no_dns_needs_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def recursive(_servers: object) -> None:
        raise ValueError("/etc/resolv.conf names no name server")

    monkeypatch.setattr(evaluate, "Recursive", recursive)
    assert evaluate.spf_evaluate(options(record="v=spf1 ip4:192.0.2.0/24 -all")) == Exit.CLEAN
    with pytest.raises(AgentError, match="no name server"):
        evaluate.spf_evaluate(options(record="v=spf1 mx -all"))


# spf


def test_the_screen_names_what_is_wrong_and_the_record_to_publish() -> None:
    cell = {
        "identity": "mailfrom",
        "family": 6,
        "verdict": "fail",
        "reason": "2001:db8::7 by `-all`",
        "severity": "critical",
    }
    remark = {"severity": "critical", "message": "mail leaves over IPv6", "advice": "add `ip6:2001:db8::7`"}
    row = {"domain": "example.org", "cells": [cell], "record": "v=spf1 -all", "remarks": [remark], "old_until": None}
    row["judged_by"] = "resolver"
    row |= {"proposed": "v=spf1 ip6:2001:db8::7 -all", "changes": ["`ip6:2001:db8::7` is added"]}
    source = {"family": 6, "address": "fd00::7", "interface": "eth0", "seen": ["2001:db8::7"], "problem": ""}
    source |= {"temporary": True, "dynamic": False, "pinned": False}
    detail = {"sends": True, "sources": [source], "smarthost": "", "domains": [row], "not_shown": 3}
    detail |= {"passed_over": ["host"], "forwarded": ["isp.example"], "looked_up": ["dsearch;/d"]}
    finding = {"id": "spf/example.org", "summary": "it is denied", "advice": "publish this", "severity": "critical"}
    text = blocks.write(spf.screen({"findings": [finding], "detail": {"spf": detail}, "unseen": ["the HELO name"]}))
    for words in (
        "1 thing is wrong with what this host sends from:\n  spf/example.org\n    it is denied.\n    → publish this\n",
        "IPv6  fd00::7 (eth0), seen as 2001:db8::7, temporary",
        "MAIL FROM over IPv6  fail     2001:db8::7 by `-all`",
        "    better: v=spf1 ip6:2001:db8::7 -all\n",
        "    by this host's resolver alone: the zone's servers do not answer\n",
        "exim looks up more domains of its own by dsearch;/d: of these, those are judged\nthat lately sent; `domains`",
        "and 3 more domains",
        "not known: the HELO name",
    ):
        assert words in text


def test_a_host_that_does_not_send_says_so() -> None:
    data = {"findings": [], "unseen": [], "detail": {"spf": {"sends": False, "silent": "exim is not installed"}}}
    assert blocks.write(spf.screen(data)) == "There is nothing to judge: exim is not installed."


@pytest.mark.parametrize("name", ["-x.org", "a b.org", "org", "x..org", "é.org", "x.org\n"])
def test_what_is_no_domain_is_not_asked_about(name: str) -> None:
    with pytest.raises(AgentError) as caught:
        spf.spf(Namespace(domain=name, json=True))
    assert caught.value.exit_status == Exit.USAGE


# reflector


def reflected(client: str, helo: str, sender: str) -> str:
    return asyncio.run(reflector.judge(client, helo, sender, lambda: Memory(Zone.load(ZONE))))


def test_the_reflector_says_both_verdicts_and_verify_understands_them() -> None:
    said = reflected("192.0.2.5", "host1.example.org", "<me@example.org>")
    assert said == (
        "client=192.0.2.5 spf=pass helo=pass for mail from example.org by mx; for helo host1.example.org by a"
    )
    found = verify.SAID.search(said)
    assert found and (found["spf"], found["helo"]) == ("pass", "pass")


def test_the_reflector_judges_an_ipv4_mapped_client_and_a_bounce() -> None:
    assert "spf=pass helo=pass for mail from host1.example.org" in reflected(
        "::ffff:192.0.2.5", "host1.example.org", "<>"
    )


@pytest.mark.parametrize(
    "hostile", ['x"\r\n250 spf=pass helo=pass', "ü\u202e.example", "a" * 900, "ü" * 900, "[192.0.2.1]"]
)
def test_what_a_stranger_calls_itself_stays_in_one_short_line_and_changes_no_verdict(hostile: str) -> None:
    said = reflected("198.51.100.1", hostile, f"{hostile}@example.org")
    assert said.isascii() and said.isprintable() and '"' not in said and len(said) <= 400
    found = verify.SAID.search(said)
    assert found and found["spf"] == "fail"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (":25", ("", 25)),
        ("192.0.2.1:2525", ("192.0.2.1", 2525)),
        ("[2001:db8::1]:25", ("2001:db8::1", 25)),
        ("2001:db8::1:25", ("2001:db8::1", 25)),
    ],
)
def test_where_it_listens_is_an_address_with_a_port(text: str, place: tuple[str, int]) -> None:
    assert reflector.parse_place(text) == place


@pytest.mark.parametrize("text", ["25", "mx.example.org:25", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:70000", "1.2.3:25"])
def test_any_other_place_is_a_mistake(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        reflector.parse_place(text)
    assert caught.value.exit_status == Exit.USAGE


@pytest.mark.parametrize(
    "address", ["postmaster@x.example", "spf-verify@x.example", "spf-verify+short@x", "spf-verify+a/b-c-d-e-f@x"]
)
def test_only_probes_with_a_token_are_taken(address: str) -> None:
    assert not reflector.PROBE.fullmatch(address)
    assert reflector.PROBE.fullmatch(verify.recipient_of("spf-verify@x.example", TOKEN))


# verify


@pytest.mark.parametrize(
    "text", ["", "x", "-x@y.example", "x@y.example\nBcc: z", "x y@z.example", "x@", "|/bin/sh@x.example\x00"]
)
def test_what_is_no_address_is_never_handed_to_sendmail(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        verify.recipient_of(text, TOKEN)
    assert caught.value.exit_status == Exit.USAGE


def test_only_the_mailbox_of_a_reflector_gets_a_token() -> None:
    assert verify.recipient_of("me@mail.example", TOKEN) == "me@mail.example"
    assert verify.recipient_of("spf-verify@mx.example", TOKEN) == f"spf-verify+{TOKEN}@mx.example"


def fate(line: str) -> verify.Fate:
    match = LINE.match(line)
    assert match
    return verify.fate_in(match)


def test_the_line_of_a_delivery_tells_source_peer_answer_and_verdict() -> None:
    found = fate(GONE)
    assert (found.fate, found.server, found.address) == ("delivered", "r.example", "198.51.100.26")
    assert (found.source, found.seen, found.spf, found.helo) == ("203.0.113.10", "203.0.113.10", "pass", "none")
    assert found.passes and found.reply.startswith("250 2.0.0 client=")


@pytest.mark.parametrize(
    ("change", "passes"),
    [("spf=softfail helo=none", False), ("spf=pass helo=fail", False), ("spf=pass helo=neutral", True), ("OK", False)],
)
def test_only_a_pass_that_no_helo_spoils_passes(change: str, passes: bool) -> None:
    assert fate(GONE.replace("spf=pass helo=none", change)).passes is passes


def test_a_refusal_keeps_the_words_of_the_other_server_and_is_no_verdict() -> None:
    refused = (
        "2026-11-22 16:00:01 1vMPQr-0000Ab-2C ** x@r.example R=dnslookup T=remote_smtp H=r.example [198.51.100.26]: SMTP "
        "error from remote mail server after RCPT TO:<x@r.example>: 550 5.7.26 unauthenticated spf=pass helo=pass"
    )
    found = fate(refused)
    assert (found.fate, found.spf, found.passes) == ("refused", "", False)
    assert found.reply.startswith("SMTP error from remote mail server after RCPT TO")


def test_the_mail_is_known_by_its_token_alone() -> None:
    match, other = LINE.match(ARRIVAL), LINE.match(ARRIVAL.replace(TOKEN, TOKEN[::-1]))
    assert match and verify.id_in(match, TOKEN) == "1vMPQr-0000Ab-2C"
    assert other and verify.id_in(other, TOKEN) == ""


def test_the_log_is_followed_through_a_rotation_and_from_before_there_was_one(tmp_path: Path) -> None:
    path = tmp_path / "mainlog"
    log = verify.Log(str(path))
    assert list(log.lines()) == []
    path.write_text("one\ntw")
    assert list(log.lines()) == ["one"]
    with path.open("a") as file:
        file.write("o\n")
        path.rename(tmp_path / "mainlog.1")
        path.write_text("four\n")
        file.write("three\n")
        file.flush()
        assert list(log.lines()) == ["two", "three", "four"]
    log.close()


def test_what_was_logged_before_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mainlog"
    path.write_text("old\n")
    log = verify.Log(str(path))
    with path.open("a") as file:
        file.write("new\n")
    assert list(log.lines()) == ["new"]


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x\n")
    (tmp_path / "mainlog").symlink_to(tmp_path / "secret")
    with pytest.raises(AgentError):
        verify.Log(str(tmp_path / "mainlog"))


def test_the_screen_of_a_probe_says_whether_it_passed() -> None:
    data = {"passes": False, "spf": "fail", "helo": "none", "fate": "delivered", "id": "1vMPQr-0000Ab-2C", "seen": ""}
    data |= {"recipient": "x@y", "server": "y", "address": "192.0.2.1", "source": "", "reply": "250 spf=fail helo=none"}
    text = blocks.write(verify.screen(data))
    assert text.startswith("The probe did not pass: spf=fail, helo=none.")
    assert "not logged: log_selector needs +incoming_interface +outgoing_interface" in text.replace(
        "\n             ", " "
    )
