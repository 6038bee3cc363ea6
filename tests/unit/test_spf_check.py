"""The check `spf`: who is judged, what is told, what is remembered, when it is asked again. DNS is a zone in memory."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.checks import spf as check
from agent.checks.spf import SOONEST, Tools, examine, run, senders
from agent.checks.spf.lookups import Dns
from agent.checks.spf.wording import quoted
from agent.host.mail.exim_config import CHOICES, GENERATED
from agent.host.network.addresses import Address, Sort
from agent.host.network.echo import Echo
from agent.host.network.egress import Egress, Way
from agent.model import contract
from agent.model.contract import finding as shown
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.findings import CheckResult, Finding, Request, Severity
from agent.spawn import Done
from agent.spf.answers import Answer, Outcome, ServerAnswer
from agent.spf.evaluate import Resolver
from agent.spf.resolver import Authoritative, Recursive
from agent.spf.session import Budget
from tests.spf import server
from tests.spf.zone import Memory, Zone
from tests.unit.small_root import put
from tests.unit.test_exim import BROKEN

NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
V4, V6 = "88.198.1.2", "2a01:4f8:1:2:5054:8dff:fe9b:358d"
HOST, DOMAIN = "host1.example.org", "example.org"
GOOD = f"v=spf1 ip4:{V4} ip6:{V6} -all"
BLOG = f"v=spf1 a mx ip4:{V4} ip6:fe80::5054:8dff:fe9b:358d/64 -all"
OPTIONS = f"""\
primary_hostname = {HOST}
qualify_domain = {DOMAIN}
smtp_active_hostname =
no_disable_ipv6
local_domains = @:localhost:{DOMAIN}
log_selector =
{GENERATED}

remote_smtp transport:
driver = smtp
helo_data = $primary_hostname
interface = INTERFACE
"""
CLOUDFLARE = "104.21.3.4"


def way(source: str, family: int, **changes: Any) -> Way:
    """Return how mail leaves, as `read_egress` says."""
    row = Address(source, 64, "eth0", "global", (), None, None)
    known = Way(("198.41.0.4", "2001:503:ba3e::2:30")[family == 6], source, "", "eth0", "", False, Sort.GLOBAL, row, 1)
    return replace(known, **({"seen": (source,) if source else ()} | changes))


@dataclass
class Stage:
    """A host and the world around it, both changeable."""

    root: Host
    zone: dict[str, list[Any]]
    ways: list[Way] = field(default_factory=lambda: [way(V4, 4), way(V6, 6)])
    held: tuple[str, ...] = (V4, V6)
    options: dict[str, Any] = field(default_factory=dict)
    exim: str = OPTIONS.replace("INTERFACE", "")
    status: int = 0
    ttls: dict[str, int] = field(default_factory=dict)
    servers: dict[str, list[ServerAnswer]] = field(default_factory=dict)
    resolvers: dict[str, Answer[str]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    walled: bool = False
    far: set[str] = field(default_factory=set)
    slow: dict[str, float] = field(default_factory=dict)
    listen: Callable[[Way, str, str], Echo] = lambda way, server, name: pytest.fail("an echo was asked for")
    now: datetime = NOW
    kept: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    traced: list[tuple[Sequence[str], Sequence[str]]] = field(default_factory=list)
    limit: float = 5.0

    def tools(self) -> Tools:
        view = Servers(self)
        return Tools(
            self._exim,
            self._trace,
            self.listen,
            lambda host, servers: Dns(view, Resolvers(self)),
            lambda: 0.0,
            self.limit,
        )

    def _exim(self, argv: Sequence[str]) -> Done:
        if argv[1] == "-bP":
            return Done(tuple(argv), self.status, self.exim, "" if self.status == 124 else "exim: a complaint")
        assert argv[1:3] == ["-bt", "--"]
        name = argv[3].removeprefix("postmaster@")
        self.asked.append(name)
        routed = self.routes.get(name, "router = dnslookup, transport = remote_smtp")
        return Done(tuple(argv), 0, f"{argv[3]}\n  {routed}\n", "")

    def _trace(self, host: Host, interfaces: Sequence[str], public: Sequence[str]) -> Egress:
        self.traced.append((interfaces, public))
        rows = tuple(Address(text, 64, "eth0", "global", (), None, None) for text in self.held)
        return Egress("Debian-exim", 101, tuple(self.ways), rows)

    def look(self) -> CheckResult:
        """Run the check and remember what it wants remembered."""
        result = run(self.root, Request("spf", self.now, options=self.options, kept=self.kept), self.tools())
        self.kept = self.kept if result.keep is None else result.keep
        return result

    def after(self, **span: float) -> CheckResult:
        """Run it again, later."""
        self.now += timedelta(**span)
        return self.look()

    def publish(self, name: str, text: str) -> None:
        self.zone[name] = [{"TXT": text}]

    @property
    def memory(self) -> Memory:
        zone = Zone.load(self.zone)
        zone.ttls = self.ttls
        zone.silent |= {(name, kind) for name in self.down for kind in ("TXT", "A", "AAAA", "MX")}
        return Memory(zone)


@dataclass
class Servers:
    """The zones' own servers: two, unless told; of some names they are out of reach."""

    stage: Stage

    def within(self, seconds: float = 20.0) -> Resolver:
        memory = self.stage.memory
        memory.zone.silent |= {(name, "TXT") for name in self.stage.far}
        return memory

    async def ask(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        return self.stage.memory.zone.ask(kind, name)

    async def ask_each(self, name: str, seconds: float = 20.0) -> tuple[ServerAnswer, ...]:
        await asyncio.sleep(self.stage.slow.get(name, 0))
        answer = await self.stage.memory.txt(name)
        if self.stage.walled:
            answer = Answer(Outcome.FAILED, reason="no answer")
        usual = [ServerAnswer("ns1.example.org", "192.0.2.53", answer, 7)]
        return tuple(self.stage.servers.get(name, usual))


@dataclass
class Resolvers:
    """This host's resolver: it knows what is published, unless told."""

    stage: Stage

    def within(self, seconds: float = 20.0) -> Resolver:
        return Recent(self.stage.memory.zone, self.stage.resolvers)

    async def ask(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        return self.stage.memory.zone.ask(kind, name)


class Recent(Memory):
    """A resolver that still has something else for some names."""

    def __init__(self, zone: Zone, other: dict[str, Answer[str]]) -> None:
        super().__init__(zone)
        self.other = other

    async def txt(self, name: str) -> Answer[str]:
        return self.other.get(name) or await super().txt(name)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A host that sends as example.org, over both families, with records that let it."""
    host = Host(str(tmp_path))
    put(host, "/usr/sbin/exim4", "#!/bin/sh\n")
    (tmp_path / "usr/sbin/exim4").chmod(0o755)
    put(host, CHOICES, "dc_eximconfig_configtype='internet'\n")
    return Stage(host, {DOMAIN: [{"TXT": GOOD}], HOST: [{"TXT": GOOD}]})


def found(result: CheckResult) -> dict[str, Finding]:
    """Return the findings by subject, each in the shape of the contract."""
    for finding in result.findings:
        assert shown(finding)["check"] == "spf"
    return {finding.subject: finding for finding in result.findings}


def row(result: CheckResult, name: str) -> dict[str, Any]:
    (one,) = (item for item in result.detail["domains"] if item["domain"] == name)
    return dict(one)


def verdicts(result: CheckResult, name: str) -> list[tuple[str, int, str]]:
    return [(cell["identity"], cell["family"], cell["verdict"]) for cell in row(result, name)["cells"]]


def evidence(finding: Finding) -> dict[str, Any]:
    assert isinstance(finding.evidence, dict)
    return finding.evidence


# Who is judged


def test_where_all_is_well_every_cell_is_told_and_nothing_is_found(stage: Stage) -> None:
    result = stage.look()
    assert (result.findings, result.unseen) == ((), ())
    assert verdicts(result, DOMAIN) == [("mailfrom", 4, "pass"), ("mailfrom", 6, "pass")]
    assert verdicts(result, HOST) == [("helo", 4, "pass"), ("helo", 6, "pass")]
    assert row(result, DOMAIN)["record"] == GOOD
    assert result.detail["sources"][1]["seen"] == [V6]


def test_the_domains_of_the_settings_are_judged_too_and_a_name_without_a_dot_is_passed_over(stage: Stage) -> None:
    stage.options = {"domains": ["shop.example", "host"]}
    stage.publish("shop.example", f"v=spf1 ip4:{V4} -all")
    result = stage.look()
    assert found(result)["shop.example"].severity is Severity.CRITICAL
    assert result.detail["passed_over"] == ["host"]


def test_the_own_name_is_a_sender_where_it_qualifies_addresses(stage: Stage) -> None:
    stage.exim = stage.exim.replace(f"qualify_domain = {DOMAIN}", f"qualify_domain = {HOST}")
    assert row(stage.look(), HOST)["identities"] == ["mailfrom", "helo"]


@pytest.mark.parametrize("kind", ["local", "none"])
def test_a_host_that_sends_nothing_has_no_findings_and_says_so(stage: Stage, kind: str) -> None:
    put(stage.root, CHOICES, f"dc_eximconfig_configtype='{kind}'\n")
    stage.zone = {}
    result = stage.look()
    assert result.findings == () and result.detail["sends"] is False and kind in result.detail["silent"]
    assert result.again_at is None and result.keep is None


def test_without_exim_and_with_a_broken_one_there_is_nothing_to_judge(stage: Stage) -> None:
    stage.exim, stage.status = BROKEN, 1
    assert "broken" in stage.look().detail["silent"]
    Path(stage.root.under("/usr/sbin/exim4")).unlink()
    assert stage.look().detail == {"sends": False, "silent": "exim is not installed"}


def test_through_a_smarthost_the_own_addresses_are_not_required(stage: Stage) -> None:
    put(stage.root, CHOICES, "dc_eximconfig_configtype='smarthost'\ndc_smarthost='mail.isp.example'\n")
    stage.exim = stage.exim.replace("remote_smtp transport", "remote_smtp_smarthost transport")
    stage.publish(DOMAIN, "v=spf1 include:isp.example -all")
    stage.publish("isp.example", "v=spf1 ip4:192.0.2.0/24 -all")
    result = stage.look()
    assert found(result) == {}
    assert {cell[2] for cell in verdicts(result, DOMAIN)} == {"not required"}
    stage.publish(DOMAIN, GOOD)
    assert evidence(found(stage.look())[DOMAIN])["remarks"][0]["code"] == "smarthost-not-listed"


def test_what_exim_expands_at_delivery_is_unknown_and_no_alarm(stage: Stage) -> None:
    stage.exim = OPTIONS.replace("INTERFACE", "${if eq{a}{b}{1.2.3.4}}").replace("$primary_hostname", "${lc:X}")
    stage.publish(DOMAIN, "v=spf1 -all")
    result = stage.look()
    assert result.findings == ()
    assert {cell[2] for cell in verdicts(result, DOMAIN)} == {"unknown"}
    assert any("HELO" in line for line in result.unseen) and any("at delivery" in line for line in result.unseen)
    assert stage.traced == [((), ())]


def test_exims_interface_and_the_public_addresses_go_to_the_kernel(stage: Stage) -> None:
    stage.exim = OPTIONS.replace("INTERFACE", f"<; {V4} ; {V6}")
    stage.options = {"public_addresses": ["192.0.2.9"]}
    stage.look()
    assert stage.traced == [((V4, V6), ("192.0.2.9",))]


def test_ipv6_that_exim_has_switched_off_is_not_used(stage: Stage) -> None:
    stage.exim = stage.exim.replace("no_disable_ipv6", "disable_ipv6")
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} -all")
    result = stage.look()
    assert found(result) == {} and ("mailfrom", 6, "not used") in verdicts(result, DOMAIN)


# Domains that no list names


def log(stage: Stage, *domains: str) -> None:
    """Have mail of these domains leave by exim's transport, lately."""
    lines = []
    for number, name in enumerate(domains):
        at = f"2026-11-21 12:00:{number:02} +0000 1vMPQr-0000{number:02}-2C"
        lines.append(f"{at} <= info@{name} U=u P=local S=400")
        lines.append(f"{at} => x@mx.example R=dnslookup T=remote_smtp S=500 H=mx.example [198.51.100.25]")
    put(stage.root, "/var/log/exim4/mainlog", "".join(f"{line}\n" for line in lines))


def test_a_domain_that_exim_looks_up_and_that_sent_lately_is_ours_and_one_that_was_forwarded_is_not(
    stage: Stage,
) -> None:
    stage.exim = stage.exim.replace(f":{DOMAIN}\n", f":{DOMAIN}:dsearch;/etc/exim4/virtual\n")
    log(stage, "virtual.example", "isp.example", DOMAIN)
    stage.routes["virtual.example"] = "router = virtual_aliases, transport = mail_spool"
    stage.publish("virtual.example", "v=spf1 -all")
    stage.publish("isp.example", "v=spf1 -all")
    result = stage.look()
    assert {name: item.severity for name, item in found(result).items()} == {"virtual.example": Severity.CRITICAL}
    assert result.detail["forwarded"] == ["isp.example"]
    assert result.detail["looked_up"] == ["dsearch;/etc/exim4/virtual"] and result.unseen == ()
    assert DOMAIN not in stage.asked, "what a list names needs no question"


def test_an_exim_that_keeps_all_mail_has_not_said_what_is_its_own(stage: Stage) -> None:
    """As one whose first router hands all mail to a scanner."""
    log(stage, "isp.example")
    stage.routes = dict.fromkeys(("isp.example", senders.CONTROL), "router = scan, transport = scanner_pipe")
    stage.publish("isp.example", "v=spf1 -all")
    result = stage.look()
    assert found(result) == {} and result.detail["forwarded"] == ["isp.example"]


def test_exim_is_asked_about_a_bounded_number_of_names_and_not_for_longer_than_there_is_patience(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(stage, *(f"d{number}.example" for number in range(30)))
    stage.look()
    assert len(stage.asked) == senders.MOST_ASKED
    stage.asked.clear()
    monkeypatch.setattr(senders, "PATIENCE", 0.0)
    assert len(stage.look().detail["forwarded"]) == 30 and stage.asked == []


def test_of_a_domain_that_is_not_ours_it_is_said_what_would_be(stage: Stage) -> None:
    stage.publish("stranger.example", "v=spf1 ip4:192.0.2.1 ip6:2001:4860::1 -all")
    stage.publish(DOMAIN, "v=spf1 ip4:192.0.2.1 ip6:2001:4860::1 -all")
    request = Request("spf", NOW)
    words = {
        name: check.tell(examine(stage.root, request, stage.tools(), name), request).findings[0].summary
        for name in ("stranger.example", DOMAIN)
    }
    assert words["stranger.example"].startswith(f"`{V4}` would send for `stranger.example`, but")
    assert words[DOMAIN].startswith(f"`{V4}` sends for `{DOMAIN}`, but")


def test_where_no_name_server_answers_exim_it_is_said_which_those_are(stage: Stage) -> None:
    put(stage.root, "/etc/resolv.conf", "search x\nnameserver 192.0.2.9\nnameserver 2001:db8::9\n")
    stage.exim, stage.status = "", 124
    with pytest.raises(AgentError) as caught:
        examine(stage.root, Request("spf", NOW), stage.tools())
    assert caught.value.hint == "/etc/resolv.conf names 192.0.2.9, 2001:db8::9: see whether they answer"


# What is told


def test_a_domain_that_does_not_exist_is_refused_and_no_record_helps(stage: Stage) -> None:
    del stage.zone[DOMAIN]
    finding = found(stage.look())[DOMAIN]
    assert finding.severity is Severity.CRITICAL and "does not exist in DNS" in finding.summary
    assert "register it" in finding.advice and evidence(finding)["proposed"] == ""
    assert {(cell["verdict"], cell["severity"]) for cell in evidence(finding)["cells"]} == {("none", "critical")}
    stage.zone[DOMAIN] = [{"A": V4}]
    assert "has no SPF record" in found(stage.look())[DOMAIN].summary


def test_a_name_that_is_listed_but_never_sends_is_no_alarm_where_it_does_not_exist(stage: Stage) -> None:
    stage.exim = stage.exim.replace(f":{DOMAIN}\n", f":{DOMAIN}:host1.lan\n")
    assert found(stage.look())["host1.lan"].severity is Severity.WARNING


def test_the_record_of_the_blog_is_found_with_the_exact_record_to_publish(stage: Stage) -> None:
    stage.publish(DOMAIN, BLOG)
    stage.zone[DOMAIN] += [{"A": CLOUDFLARE}, {"MX": [10, HOST]}]
    stage.zone[HOST] += [{"A": V4}]
    finding = found(stage.look())[DOMAIN]
    assert finding.severity is Severity.CRITICAL
    wanted = f"v=spf1 mx ip4:{V4} ip6:{V6} -all"
    assert finding.advice == f'publish this TXT record for {DOMAIN}: "{wanted}"'
    assert finding.summary.startswith("mail over IPv6 does not pass: ") and "fe80" in finding.summary
    assert evidence(finding)["proposed"] == wanted and evidence(finding)["record"] == BLOG
    codes = {remark["code"] for remark in evidence(finding)["remarks"]}
    assert {"link-local", "leads-elsewhere", "ipv6-not-listed"} <= codes
    stage.publish(DOMAIN, wanted)
    assert found(stage.look()) == {}


def test_a_replacement_that_would_not_pass_is_not_shown(stage: Stage) -> None:
    """It would let everybody pass, which only the evaluation sees."""
    stage.publish(DOMAIN, "v=spf1 ip4:192.0.2 exists:%{d} -all")
    stage.zone[DOMAIN] += [{"A": "127.0.0.2"}]
    finding = found(stage.look())[DOMAIN]
    assert evidence(finding)["proposed"] == "" and "publish this TXT" not in finding.advice


def test_what_no_record_mends_keeps_its_own_advice(stage: Stage) -> None:
    old = Answer(Outcome.FOUND, ("v=spf1 ip4:192.0.2.7 -all",), 300)
    new = Answer(Outcome.FOUND, (GOOD.replace(" -all", ""),), 300)
    stage.servers[DOMAIN] = [ServerAnswer("ns1", "::1", new, 7), ServerAnswer("ns2.example.org", "192.0.2.54", old, 6)]
    result = stage.look()
    finding = found(result)[DOMAIN]
    assert finding.severity is Severity.WARNING and "SOA serials" in finding.advice
    assert "ns2.example.org still serve another record" in finding.summary and evidence(finding)["proposed"]
    assert [server["differs"] for server in row(result, DOMAIN)["servers"]] == [False, True]


def test_foreign_text_is_printable_wherever_it_is_told(stage: Stage) -> None:
    stage.publish(DOMAIN, "v=spf1 \x1b[2Jx include:\u202eexample.org -all")
    result = stage.look()
    words = repr([result.detail, [shown(item) for item in result.findings], result.unseen])
    assert "\\x1b" in words and "\x1b" not in str(shown(result.findings[0]))
    assert "\u202e" not in words


def test_a_long_record_is_written_as_several_strings_that_join_without_a_loss() -> None:
    text = "v=spf1 " + " ".join(f"ip4:192.0.2.{number}" for number in range(60)) + " -all"
    strings = [part.strip('"') for part in quoted(text).split('" "')]
    assert "".join(strings) == text and max(map(len, strings)) <= 255 and len(strings) == 4


def test_a_temporary_source_is_told_of_the_host_as_a_whole(stage: Stage) -> None:
    temporary = "2a01:4f8:1:2:abcd:ef01:2345:6789"
    place = Address(temporary, 64, "eth0", "global", ("temporary",), 86400, 3600)
    stage.ways[1] = way(temporary, 6, address=place)
    assert found(stage.look())["sources"].severity is Severity.CRITICAL
    stage.ways[1] = way(V6, 6)
    assert stage.after(hours=24).detail["former"] == []


def test_information_is_in_the_detail_and_no_finding(stage: Stage) -> None:
    del stage.zone[HOST]
    result = stage.look()
    assert found(result) == {}
    assert [remark["code"] for remark in row(result, HOST)["remarks"]] == ["helo-no-record"]


# Behind an address translator


def behind(stage: Stage) -> None:
    stage.ways = [way("10.0.0.5", 4, seen=(), unseen="10.0.0.5 is private"), way("", 6, problem="no route")]
    stage.held = ("10.0.0.5",)
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} -all")
    stage.publish(HOST, f"v=spf1 ip4:{V4} -all")


def test_behind_a_translator_nothing_is_known_and_nothing_is_alarming(stage: Stage) -> None:
    behind(stage)
    stage.publish(DOMAIN, "v=spf1 -all")
    result = stage.look()
    assert result.findings == () and ("mailfrom", 4, "unknown") in verdicts(result, DOMAIN)
    assert any("10.0.0.5 is private" in line for line in result.unseen)


def test_the_echo_is_asked_where_it_is_allowed_and_what_it_says_is_judged(stage: Stage) -> None:
    behind(stage)
    asked = []

    def listen(one: Way, server: str, name: str) -> Echo:
        asked.append((one.source, server, name))
        return Echo("192.0.2.77")

    stage.listen = listen
    stage.options = {"echo": "mx.example.net"}
    stage.zone["mx.example.net"] = [{"A": "198.51.100.25"}]
    result = stage.look()
    assert asked == [("10.0.0.5", "198.51.100.25", HOST)]
    assert ("mailfrom", 4, "fail") in verdicts(result, DOMAIN)
    assert "192.0.2.77" in found(result)[DOMAIN].summary


@pytest.mark.parametrize("echo", [Echo(problem="it hung up"), Echo("10.9.9.9")])
def test_an_echo_that_knows_nothing_leaves_it_unknown_and_says_why(stage: Stage, echo: Echo) -> None:
    behind(stage)
    stage.listen = lambda one, server, name: echo
    stage.options = {"echo": "198.51.100.25"}
    result = stage.look()
    assert ("mailfrom", 4, "unknown") in verdicts(result, DOMAIN)
    assert any("198.51.100.25 was asked: it" in line for line in result.unseen)


def test_an_echo_that_cannot_be_run_is_no_reason_to_fail(stage: Stage) -> None:
    def listen(one: Way, server: str, name: str) -> Echo:
        raise AgentError(Kind.SPAWN, "no such user")

    behind(stage)
    stage.listen = listen
    stage.options = {"echo": "198.51.100.25"}
    assert any("no such user" in line for line in stage.look().unseen)


# What is remembered


def test_an_address_that_was_ours_is_taken_out_of_the_record(stage: Stage) -> None:
    stage.look()
    fresh = "88.198.9.9"
    stage.ways[0], stage.held = way(fresh, 4), (fresh, V6)
    finding = found(stage.after(hours=1))[DOMAIN]
    assert evidence(finding)["proposed"] == f"v=spf1 ip6:{V6} ip4:{fresh} -all"
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} ip4:{fresh} ip6:{V6} -all")
    stage.publish(HOST, f"v=spf1 ip4:{fresh} ip6:{V6} -all")
    result = stage.after(hours=1)
    assert result.detail["former"] == [V4]
    assert "no longer has it" in found(result)[DOMAIN].summary and found(result)[DOMAIN].severity is Severity.WARNING
    stage.ways[0], stage.held = way(V4, 4), (V4, V6)
    stage.publish(DOMAIN, GOOD)
    assert stage.after(hours=1).detail["former"] == [fresh]


def test_a_network_that_is_down_takes_no_address_away(stage: Stage) -> None:
    stage.look()
    ways, stage.ways, stage.held = stage.ways, [way("", 4, problem="no route"), way("", 6, problem="no route")], ()
    result = stage.after(minutes=1)
    assert result.findings == () and result.detail["former"] == []
    stage.ways, stage.held = ways, (V4, V6)
    assert stage.after(minutes=1).findings == ()


def test_a_dns_that_fails_is_unknown_with_the_age_of_the_last_verdict_and_no_alarm(stage: Stage) -> None:
    stage.look()
    stage.down = {DOMAIN, HOST}
    result = stage.after(hours=3)
    assert result.findings == ()
    cells = row(result, DOMAIN)["cells"]
    assert {cell["verdict"] for cell in cells} == {"unknown"}
    assert "the last good verdict, 3 h old, is pass" in cells[0]["reason"]
    assert any(line.startswith("the record of example.org: ") for line in result.unseen)


def test_failures_that_last_are_a_warning_and_the_first_answer_ends_it(stage: Stage) -> None:
    stage.look()
    stage.down = {DOMAIN, HOST}
    for _ in range(2):
        assert stage.after(minutes=10).findings == ()
    result = stage.after(minutes=10)
    assert found(result)[DOMAIN].severity is Severity.WARNING
    assert "3 times in 20 min" in found(result)[DOMAIN].summary
    stage.down = set()
    result = stage.after(minutes=10)
    assert result.findings == () and row(result, DOMAIN)["failures"] == 0


def test_a_wall_between_us_and_all_servers_is_gone_around_once_the_resolver_must_have_asked_anew(stage: Stage) -> None:
    stage.look()
    stage.walled = True
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} -all")
    for _ in range(2):
        result = stage.after(minutes=10)
        assert result.findings == () and row(result, DOMAIN)["judged_by"] == "servers"
        (remark,) = row(result, DOMAIN)["remarks"]
        assert "port 53" in remark["advice"] and "put such mail off" not in remark["advice"]
    result = stage.after(minutes=10)
    assert row(result, DOMAIN)["judged_by"] == "resolver" and evidence(found(result)[DOMAIN])["proposed"]
    stage.publish(DOMAIN, GOOD)
    assert stage.after(minutes=10).findings == ()
    stage.down = {DOMAIN, HOST}
    assert {cell["verdict"] for cell in row(stage.after(minutes=10), DOMAIN)["cells"]} == {"unknown"}
    stage.down, stage.walled = set(), False
    assert row(stage.after(minutes=10), DOMAIN)["judged_by"] == "servers"


def test_servers_out_of_reach_are_gone_around_at_once_where_nothing_is_known(stage: Stage) -> None:
    stage.walled = True
    result = stage.look()
    assert (result.findings, result.unseen) == ((), ())
    assert row(result, DOMAIN)["judged_by"] == "resolver"
    stage.kept = {}
    stage.publish(DOMAIN, "v=spf1 -all")
    assert found(stage.look())[DOMAIN].summary.endswith("(by this host's resolver alone)")


def test_an_include_whose_servers_alone_are_out_of_reach_is_gone_around_too(stage: Stage) -> None:
    """As where this host has IPv6 alone, and those servers have not."""
    stage.publish(DOMAIN, "v=spf1 include:inner.example -all")
    stage.publish("inner.example", GOOD)
    stage.far = {"inner.example"}
    result = stage.look()
    assert (result.findings, result.unseen) == ((), ())
    assert verdicts(result, DOMAIN) == [("mailfrom", 4, "pass"), ("mailfrom", 6, "pass")]


def test_who_looks_for_the_first_time_does_not_claim_that_nobody_ever_did(stage: Stage) -> None:
    stage.down = {DOMAIN}
    result = stage.look()
    (remark,) = row(result, DOMAIN)["remarks"]
    assert "never" not in remark["message"] + row(result, DOMAIN)["cells"][0]["reason"]
    assert "put such mail off" in remark["advice"], "the resolver failed too"
    assert "never was judged" in row(stage.after(minutes=5), DOMAIN)["remarks"][0]["message"]


def test_what_was_said_of_an_address_that_is_gone_is_not_said_again(stage: Stage) -> None:
    stage.look()
    moved = "88.198.9.9"
    stage.ways[0], stage.held = way(moved, 4), (moved, V6)
    assert f"`{moved}` sends for" in found(stage.after(minutes=5))[DOMAIN].summary
    stage.down = {DOMAIN}
    ways, stage.ways = stage.ways, [way("", 4, problem="no route"), way(V6, 6)]
    assert f"`{moved}`" in found(stage.after(minutes=5))[DOMAIN].summary, "a network that is down loses no address"
    stage.ways = ways
    assert f"`{moved}`" in found(stage.after(minutes=5))[DOMAIN].summary
    stage.ways[0], stage.held = way(V4, 4), (V4, V6)
    assert DOMAIN not in found(stage.after(minutes=1))


def test_the_record_is_proposed_also_where_a_name_still_leads_to_the_address_that_was_ours(stage: Stage) -> None:
    """So that who remembers more does not advise less."""
    stage.publish(DOMAIN, f"v=spf1 mx ip6:{V6} -all")
    stage.zone[DOMAIN] += [{"MX": [10, HOST]}]
    stage.zone[HOST] += [{"A": V4}]
    stage.look()
    fresh = "88.198.9.9"
    stage.ways[0], stage.held = way(fresh, 4), (fresh, V6)
    remembering = found(stage.after(hours=1))[DOMAIN].advice
    stage.kept = {}
    assert remembering == found(stage.look())[DOMAIN].advice
    assert remembering.startswith("publish this TXT record") and fresh in remembering


def test_what_was_wrong_stays_wrong_while_nobody_can_look(stage: Stage) -> None:
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} -all")
    before = found(stage.look())[DOMAIN]
    stage.down = {DOMAIN}
    again = found(stage.after(minutes=5))[DOMAIN]
    assert (again.severity, again.advice) == (before.severity, before.advice)
    assert again.summary == f"when last looked at (2026-11-22 16:00 UTC): {before.summary}"
    assert found(stage.after(minutes=5))[DOMAIN].summary == again.summary, "nothing is new while nobody can look"
    assert evidence(again)["checked_at"] == "2026-11-22T16:00:00Z"
    stage.down = set()
    stage.publish(DOMAIN, GOOD)
    assert found(stage.after(minutes=5)) == {}


def test_one_address_that_cannot_be_judged_does_not_hide_the_other_one(stage: Stage) -> None:
    stage.publish(DOMAIN, f"v=spf1 -ip4:{V4} include:inner.example -all")
    stage.down = {"inner.example"}
    result = stage.look()
    assert verdicts(result, DOMAIN) == [("mailfrom", 4, "fail"), ("mailfrom", 6, "unknown")]
    assert found(result)[DOMAIN].severity is Severity.CRITICAL


def test_while_exim_cannot_be_asked_what_was_wrong_stays_wrong_and_it_is_tried_again(stage: Stage) -> None:
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} -all")
    before = found(stage.look())
    looked_at = contract.stamp(stage.now)
    sound, stage.exim, stage.status = stage.exim, "", 1
    result = stage.after(hours=1)
    assert list(found(result)) == [DOMAIN] and found(result)[DOMAIN].summary.endswith(f": {before[DOMAIN].summary}")
    assert "a complaint" in result.unseen[0] and result.again_at == stage.now + timedelta(minutes=15)
    assert result.detail["last_known"] == [
        {"domain": DOMAIN, "verdicts": {"mailfrom": "fail"}, "checked_at": looked_at},
        {"domain": HOST, "verdicts": {"helo": "pass"}, "checked_at": looked_at},
    ]
    stage.exim, stage.status = sound, 0
    stage.publish(DOMAIN, GOOD)
    assert stage.after(minutes=15).findings == ()


def test_a_result_survives_the_way_from_the_worker_to_the_daemon(stage: Stage) -> None:
    stage.publish(DOMAIN, "v=spf1 \udc80 -all")
    result = stage.look()
    assert contract.decode(CheckResult, json.loads(json.dumps(contract.encode(result)))) == result


def test_memory_of_another_shape_is_forgotten(stage: Stage) -> None:
    stage.kept = {"rows": [1], "own": 3}
    assert stage.look().keep is not None


# Old answers


def test_what_resolvers_still_have_is_told_with_a_countdown(stage: Stage) -> None:
    stage.resolvers[DOMAIN] = Answer(Outcome.FOUND, ("v=spf1 ip4:192.0.2.7 -all",), 1800)
    result = stage.look()
    assert result.findings == ()
    assert row(result, DOMAIN)["old_until"] == "2026-11-22T16:30:00Z"
    (remark,) = row(result, DOMAIN)["remarks"]
    assert (remark["code"], remark["severity"]) == ("old-answer", "info") and "until 16:30 (30 min more)" in remark[
        "message"
    ]


def test_a_record_that_changed_may_be_known_elsewhere_for_as_long_as_the_old_one_lived(stage: Stage) -> None:
    stage.ttls[DOMAIN] = 7200
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} ip6:{V6} ~all")
    stage.look()
    stage.ttls[DOMAIN] = 300
    stage.publish(DOMAIN, GOOD)
    assert row(stage.after(minutes=1), DOMAIN)["old_until"] == "2026-11-22T18:01:00Z"
    assert row(stage.after(minutes=30), DOMAIN)["old_until"] == "2026-11-22T18:01:00Z"
    assert row(stage.after(hours=2), DOMAIN)["old_until"] is None


def test_a_resolver_that_never_learns_the_record_serves_another_zone(stage: Stage) -> None:
    stage.resolvers[DOMAIN] = Answer(Outcome.FOUND, ("v=spf1 ip4:10.0.0.1 -all",), 600)
    assert stage.look().findings == () and stage.after(minutes=10).findings == ()
    finding = found(stage.after(minutes=5))[DOMAIN]
    assert finding.severity is Severity.WARNING and "the world's is judged" in finding.summary


# When it is asked again


@pytest.mark.parametrize(("ttl", "seconds"), [(900, 900), (5, 60), (90_000, 6 * 3600)])
def test_it_wants_to_run_again_when_the_first_answer_expires(stage: Stage, ttl: int, seconds: int) -> None:
    stage.ttls = {DOMAIN: ttl, HOST: 90_000}
    assert stage.look().again_at == NOW + timedelta(seconds=seconds)


def test_hosts_do_not_all_ask_at_the_same_moment(stage: Stage) -> None:
    tools = replace(stage.tools(), chance=lambda: 1.0)
    stage.ttls = {DOMAIN: 1000, HOST: 1000}
    again = run(stage.root, Request("spf", NOW), tools).again_at
    assert again == NOW + timedelta(seconds=1100)


def test_after_a_failure_it_tries_again_soon_and_less_and_less_often(stage: Stage) -> None:
    stage.look()
    stage.down = {DOMAIN}
    waits = []
    for _ in range(6):
        result = stage.after(seconds=1)
        assert result.again_at
        waits.append((result.again_at - stage.now).total_seconds())
    assert waits == [60, 120, 240, 300, 300, 300]


def test_an_old_answer_wakes_it_when_it_has_gone(stage: Stage) -> None:
    stage.ttls = {DOMAIN: 7200, HOST: 7200}
    stage.resolvers[DOMAIN] = Answer(Outcome.FOUND, ("v=spf1 -all",), 400)
    assert stage.look().again_at == NOW + timedelta(seconds=400)


# Time


def test_domains_for_which_there_is_no_time_come_first_the_next_time_and_keep_what_was_said_of_them(
    stage: Stage,
) -> None:
    stage.publish(DOMAIN, f"v=spf1 ip4:{V4} -all")
    stage.look()
    stage.slow = {DOMAIN: 9.0}
    stage.limit = 1.0
    begun = time.monotonic()
    result = stage.after(hours=1)
    assert time.monotonic() - begun < 5
    assert found(result)[DOMAIN].severity is Severity.CRITICAL
    assert any(line.startswith("1 domains for which there was no time") for line in result.unseen)
    assert result.again_at == stage.now + SOONEST
    stage.slow = {}
    assert row(stage.after(minutes=1), DOMAIN)["failures"] == 0


def test_where_there_never_is_time_for_all_every_domain_has_its_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "AT_ONCE", 1)
    stage.options = {"domains": ["a.example", "b.example"]}
    names = {DOMAIN, HOST, "a.example", "b.example"}
    stage.slow = dict.fromkeys(names, 0.15)
    stage.limit = 0.25
    done = [{item["domain"] for item in stage.after(minutes=1).detail["domains"]} for _ in range(8)]
    assert set().union(*done) == names and all(some < names for some in done)


def test_only_one_domain_is_judged_when_one_is_asked_about_even_of_strangers_and_without_exim(stage: Stage) -> None:
    Path(stage.root.under("/usr/sbin/exim4")).unlink()
    stage.publish("stranger.example", "v=spf1 ip4:192.0.2.1 -all")
    outcome = examine(stage.root, Request("spf", NOW), stage.tools(), "Stranger.example.")
    (judged,) = outcome.judged
    assert judged.looked.name == "stranger.example"
    assert [cell.verdict for cell in judged.cells] == ["fail", "fail"]


# Over the wire, where strings are strings and types are types


def look_over_the_wire(stage: Stage, published: dict[str, tuple[object, ...]]) -> CheckResult:
    """Run the check with the real resolver, over a server that has this for the domain."""
    names: dict[str, dict[str, tuple[Any, ...]]] = {
        DOMAIN: {"NS": (f"ns.{DOMAIN}",)} | published,
        f"ns.{DOMAIN}": {"A": ("127.0.0.1",)},
        HOST: {"TXT": (GOOD,)},
    }
    with server.serve(Zone(names), server.Behaviour(apexes=(DOMAIN,))) as running:
        seen = Recursive([running.server])
        dns = Dns(Authoritative(seen, running.server.port), seen)
        return run(stage.root, Request("spf", NOW), replace(stage.tools(), dns=lambda host, servers: dns))


@pytest.mark.real
def test_strings_that_are_joined_without_a_blank_are_found_where_they_meet(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = f"v=spf1 ip6:{V6}", f"ip4:{V4} -all"
    monkeypatch.setattr(server, "PIECE", len(first))
    result = look_over_the_wire(stage, {"TXT": (first + second,)})
    (joined,) = (item for item in row(result, DOMAIN)["remarks"] if item["code"] == "joined")
    assert (joined["severity"], joined["start"]) == ("critical", len(first))
    assert joined["message"].endswith(f"without a blank: `…{first[-20:]}`·`{second:.20}…`")
    assert found(result)[DOMAIN].severity is Severity.CRITICAL


@pytest.mark.real
def test_a_long_record_in_several_sound_strings_is_no_long_string(stage: Stage) -> None:
    text = " ".join(["v=spf1", *(f"ip4:88.198.1.{number}" for number in range(1, 20)), f"ip6:{V6}", "-all"])
    assert len(text) > 255
    result = look_over_the_wire(stage, {"TXT": ("v=verification", text)})
    assert row(result, DOMAIN)["record"] == text
    assert {"long-string", "joined"}.isdisjoint(item["code"] for item in row(result, DOMAIN)["remarks"])
    assert verdicts(result, DOMAIN) == [("mailfrom", 4, "pass"), ("mailfrom", 6, "pass")]


@pytest.mark.real
def test_a_record_of_the_type_spf_alone_is_found_and_beside_a_txt_is_not(stage: Stage) -> None:
    finding = found(look_over_the_wire(stage, {"SPF": (f'"{GOOD}"',)}))[DOMAIN]
    assert finding.severity is Severity.CRITICAL and "with the type SPF (99) alone" in finding.summary
    assert finding.advice == "publish the same text as a TXT record"
    assert evidence(finding)["proposed"] == "", "who does not know the old text must not propose to lose it"
    assert look_over_the_wire(stage, {"SPF": (f'"{GOOD}"',), "TXT": (GOOD,)}).findings == ()
