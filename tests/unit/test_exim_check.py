"""The check `exim`: what is a finding, how bad it is, and what mends it. Exim's answers are recordings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.checks.exim import AGAIN, ROLES, Tools, run
from agent.checks.exim.facts import SUBJECTS, Facts, Named
from agent.checks.exim.faults import judge
from agent.checks.exim.names import is_full_name, names_in_hosts
from agent.cli.blocks import write
from agent.cli.exim import screen
from agent.host.mail.exim import Exim, Transport
from agent.host.mail.exim_config import CHOICES, GENERATED, OVERRIDE, Choices
from agent.host.mail.exim_interfaces import Lost
from agent.host.mail.exim_pending import Complaint, Pending
from agent.host.mail.exim_routes import Route, Verdict
from agent.model.contract import finding as shown
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.model.findings import CheckResult, Finding, Request, Severity
from agent.spawn import Done
from tests.unit.small_root import put
from tests.unit.test_exim import ARRIVED, HOSTILE, LEFT, OPTIONS, TRANSPORTS

NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
SETTINGS = Choices("internet", "", (), "", False, False, False)
EXIM = Exim(
    kind="internet",
    primary_hostname="host1.example.org",
    qualify_domain="example.org",
    local_domains="@:localhost",
    config_file=GENERATED,
    helo="host1.example.org",
    transports=(Transport("remote_smtp"),),
    choices=SETTINGS,
)
MX = (("mx.example.org", "198.51.100.25"),)


def named(
    verdict: Verdict, *roles: str, name: str = "example.org", words: str = "", mx: bool = False, back: bool = False
) -> Named:
    hosts = MX if verdict is Verdict.REMOTE else ()
    return Named(roles, Route(name, verdict, words, "remote_smtp", hosts, mx), back)


def only(facts: Facts) -> tuple[Finding, dict[str, Any]]:
    (finding,) = judge(facts)
    assert isinstance(finding.evidence, dict)
    assert finding.subject in SUBJECTS and finding.check == "exim"
    return finding, finding.evidence


# Judgement


def test_where_all_is_well_nothing_is_found() -> None:
    assert judge(Facts(EXIM, names=(named(Verdict.LOCAL, "qualify_domain"), named(Verdict.UNKNOWN, "x")))) == ()


@pytest.mark.parametrize(
    ("kind", "away", "subject", "severity"),
    [
        ("local", named(Verdict.REFUSED, "qualify_domain"), "own-name", Severity.CRITICAL),
        ("internet", named(Verdict.REMOTE, "qualify_domain"), "own-name", Severity.CRITICAL),
        ("internet", named(Verdict.REMOTE, "qualify_domain", mx=True), "qualify-domain", Severity.WARNING),
        ("internet", named(Verdict.REMOTE, "qualify_domain", mx=True, back=True), "own-name", Severity.CRITICAL),
        ("internet", named(Verdict.REMOTE, "qualify_domain", "hostname -f", mx=True), "own-name", Severity.CRITICAL),
        ("internet", named(Verdict.REMOTE, "hostname -f", mx=True), "own-name", Severity.CRITICAL),
        ("smarthost", named(Verdict.REMOTE, "qualify_domain"), "qualify-domain", Severity.WARNING),
        ("smarthost", named(Verdict.REFUSED, "qualify_domain"), "own-name", Severity.CRITICAL),
        ("satellite", named(Verdict.REMOTE, "primary_hostname"), "own-name", Severity.CRITICAL),
    ],
)
def test_a_name_that_exim_does_not_keep_is_as_bad_as_what_becomes_of_its_mail(
    kind: str, away: Named, subject: str, severity: Severity
) -> None:
    finding, evidence = only(Facts(replace(EXIM, kind=kind), names=(away,)))
    assert (finding.subject, finding.severity) == (subject, severity)
    assert evidence["kind"] == "own-name" and evidence["repairable"] is True
    assert evidence["wanted"] == "example.org" and evidence["files"] == [CHOICES]
    assert finding.advice.startswith(f"write dc_other_hostnames='example.org' into {CHOICES}, then: update-exim4.conf")


def test_all_names_that_are_lost_are_one_finding_with_one_repair() -> None:
    lost = (named(Verdict.REFUSED, "qualify_domain", words="no"), named(Verdict.REFUSED, "x", name="Host1"))
    exim = replace(EXIM, choices=replace(SETTINGS, hostnames="a ; b"))
    finding, evidence = only(Facts(exim, names=lost))
    assert evidence["names"] == ["example.org", "host1"]
    assert (evidence["current"], evidence["wanted"]) == ("a ; b", "a ; b ; example.org ; host1")
    assert finding.summary == (
        "exim takes example.org (qualify_domain) for a remote domain: its mail is lost (no); so too host1"
    )


def test_a_name_that_is_listed_and_not_generated_only_needs_that() -> None:
    exim = replace(EXIM, choices=replace(SETTINGS, hostnames="Example.org"))
    lost = (named(Verdict.REFUSED, "qualify_domain"),)
    findings = judge(Facts(exim, names=lost, pending=Pending("MAIN=a\n", "MAIN=b\n")))
    assert [finding.subject for finding in findings] == ["not-regenerated", "own-name"]
    assert findings[1].advice == "update-exim4.conf && systemctl reload exim4"
    finding, evidence = only(Facts(exim, names=lost))
    assert "overrules dc_other_hostnames" in finding.advice and evidence["repairable"] is False


@pytest.mark.parametrize(
    "exim",
    [
        replace(EXIM, kind="custom", config_file="/etc/exim4/my.conf"),
        replace(EXIM, choices=replace(SETTINGS, hostnames=None), config_file="/etc/exim4/my.conf"),
        replace(EXIM, choices=None, config_file="/etc/exim4/my.conf"),
    ],
)
def test_what_is_not_debians_plain_file_is_mended_by_hand(exim: Exim) -> None:
    finding, evidence = only(Facts(exim, names=(named(Verdict.REFUSED, "qualify_domain"),)))
    assert finding.advice.startswith("add example.org to local_domains in /etc/exim4/my.conf")
    assert (evidence["repairable"], evidence["files"]) == (False, ["/etc/exim4/my.conf"])


def test_a_broken_configuration_is_all_that_is_said() -> None:
    complaint = Complaint('main option "foo" unknown', GENERATED, 22, ("/etc/exim4/conf.d/main/x:2",))
    facts = Facts(Exim(choices=SETTINGS, complaint=complaint), ignored=("x",))
    finding, evidence = only(facts)
    assert finding.severity is Severity.CRITICAL and evidence["files"] == ["/etc/exim4/conf.d/main/x:2"]
    assert f'line 22 of {GENERATED}: main option "foo" unknown' in finding.summary
    assert finding.advice == "mend /etc/exim4/conf.d/main/x:2, then: update-exim4.conf && systemctl reload exim4"
    finding, evidence = only(replace(facts, pending=Pending("broken", "sound")))
    assert evidence["repairable"] and finding.advice == "update-exim4.conf && systemctl reload exim4"
    assert not only(replace(facts, pending=Pending("broken", "also", complaint)))[1]["repairable"]


def test_a_broken_file_of_ones_own_is_named_itself() -> None:
    complaint = Complaint("no", OVERRIDE, 3)
    finding, _ = only(Facts(Exim(choices=SETTINGS, complaint=complaint)))
    assert finding.advice.startswith(f"mend {OVERRIDE}:3, then")


def test_an_edit_names_what_it_would_change_and_keeps_secrets() -> None:
    many = "".join(f"M{number}=x\n" for number in range(5))
    finding, evidence = only(Facts(EXIM, pending=Pending("ETC_MAILNAME=a\n", f"ETC_MAILNAME=b\n{many}")))
    assert finding.summary.endswith("ETC_MAILNAME, M0, M1 and 3 more")
    assert (evidence["current"], evidence["wanted"], evidence["repairable"]) == ("a", "b", True)
    _, evidence = only(Facts(EXIM, pending=Pending("hide_x = secret\n", "hide_x = other\n")))
    assert "secret" not in str(evidence) and evidence["names"] == ["hide_x"]


def test_an_edit_that_exim_would_reject_is_worse_than_one_that_waits() -> None:
    pending = Pending("a=1\n", "a=2\n", Complaint("no such thing", "/tmp/x", 1, ("/etc/exim4/y:1",)))
    finding, evidence = only(Facts(EXIM, pending=pending))
    assert (finding.subject, finding.severity) == ("broken-edit", Severity.ERROR)
    assert finding.advice.startswith("mend /etc/exim4/y:1, then") and not evidence["repairable"]
    assert "/tmp/x" not in finding.summary


def test_a_frozen_name_is_told_from_an_edit() -> None:
    pending = Pending("MAIN_HARDCODE_PRIMARY_HOSTNAME=old.example\n", "MAIN_HARDCODE_PRIMARY_HOSTNAME=new.example\n")
    finding, evidence = only(Facts(EXIM, full_name="new.example", pending=pending))
    assert (finding.subject, finding.severity, evidence["repairable"]) == ("minimaldns", Severity.WARNING, True)
    assert (evidence["current"], evidence["wanted"]) == ("host1.example.org", "new.example")


def test_an_interface_that_is_gone_is_critical() -> None:
    lost = (Lost("remote_smtp", "<; 192.0.2.1 ; 2001:db8::1", "192.0.2.1"), Lost("other", "192.0.2.1", "192.0.2.1"))
    places: dict[str, tuple[str, ...]] = {"192.0.2.1": ("/etc/exim4/conf.d/main/x:3", "/etc/exim4/conf.d/main/y:1")}
    finding, evidence = only(Facts(EXIM, lost=lost, places=places))
    assert finding.summary.startswith("remote_smtp sends from 192.0.2.1, which this host does not have")
    assert (finding.subject, finding.severity) == ("interface", Severity.CRITICAL)
    assert "192.0.2.1 at /etc/exim4/conf.d/main/x:3" in finding.advice
    assert (evidence["names"], evidence["current"]) == (["192.0.2.1"], "<; 192.0.2.1 ; 2001:db8::1")
    assert f"at {GENERATED}" in only(Facts(EXIM, lost=lost))[0].advice


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/etc/exim4/conf.d/main/00_local.conf", "/etc/exim4/conf.d/main/00_local"),
        ("/etc/exim4/conf.d/main/my rules", "/etc/exim4/conf.d/main/my_rules"),
        ("/etc/exim4/conf.d/acl/x.rul", "/etc/exim4/conf.d/acl/x"),
        ("/etc/exim4/exim4.conf.localmacros", "/etc/exim4/conf.d/main/000_localmacros"),
    ],
)
def test_a_file_that_is_not_read_gets_a_name_that_is(path: str, target: str) -> None:
    finding, evidence = only(Facts(EXIM, ignored=(path, "/other")))
    assert finding.advice.startswith(f"mv -n '{path}' {target} && update-exim4.conf")
    assert finding.summary.endswith(", nor 1 more") and evidence["wanted"] == target


@pytest.mark.parametrize("helo", ["host1", "localhost.localdomain", "my_host.example.org", "[192.0.2.1]", "host1."])
def test_a_helo_must_be_a_full_name(helo: str) -> None:
    finding, _ = only(Facts(replace(EXIM, helo=helo)))
    assert (finding.subject, finding.severity) == ("helo", Severity.WARNING)
    assert not is_full_name(helo)


@pytest.mark.parametrize(("kind", "helo"), [("local", "host1"), ("none", "host1"), ("internet", "")])
def test_a_helo_that_is_never_said_or_not_known_is_no_finding(kind: str, helo: str) -> None:
    assert all(item.subject != "helo" for item in judge(Facts(replace(EXIM, kind=kind, helo=helo))))


def test_a_short_helo_is_mended_where_the_mail_name_tells_the_full_one() -> None:
    exim = replace(EXIM, helo="host1", primary_hostname="host1")
    finding, evidence = only(Facts(exim, mailname="host1.example.org"))
    assert evidence["repairable"] and "write `127.0.1.1 host1.example.org host1` into /etc/hosts" in finding.advice
    finding, evidence = only(Facts(exim, mailname="example.org"))
    assert not evidence["repairable"] and "127.0.1.1 host1.DOMAIN host1" in finding.advice


@pytest.mark.parametrize(
    ("host_name", "hosts", "line", "wanted"),
    [
        (
            "machine",
            "127.0.0.1 localhost machine.example.org machine # other.example.net",
            "127.0.1.1 machine.example.org machine` into /etc/hosts above the line of localhost",
            "machine.example.org",
        ),
        ("machine", "127.0.0.1 localhost machine\n::1 localhost", "127.0.1.1 machine.DOMAIN machine` into", ""),
        ("machine.example.org", "127.0.0.1 localhost", "127.0.1.1 machine.example.org machine`", "machine.example.org"),
        ("localhost", "127.0.0.1 localhost", "set-hostname NAME), write `127.0.1.1 NAME.DOMAIN NAME`", ""),
    ],
)
def test_a_host_that_answers_to_the_name_of_the_loopback_gets_its_own(
    host_name: str, hosts: str, line: str, wanted: str
) -> None:
    exim = replace(EXIM, helo="localhost", primary_hostname="localhost")
    finding, evidence = only(Facts(exim, host_name=host_name, listed=names_in_hosts(hosts)))
    assert line in finding.advice and "localhost.DOMAIN" not in finding.advice
    assert evidence["wanted"] == wanted and not evidence["repairable"]


def test_the_full_name_is_also_found_in_the_list_of_hosts() -> None:
    exim = replace(EXIM, helo="host1", primary_hostname="host1")
    _, evidence = only(Facts(exim, mailname="example.org", listed=("localhost", "host1", "host1.example.org")))
    assert evidence["repairable"] and evidence["wanted"] == "host1.example.org"


def test_foreign_words_are_printable_in_what_is_said() -> None:
    lost = (Lost("remote_smtp", "\x1b[2J", "192.0.2.1"),)
    text = str(shown(only(Facts(EXIM, lost=lost))[0]))
    assert "\x1b" not in text and "\\x1b" in text


# The run


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(str(tmp_path), f"{tmp_path}/proc")
    put(host, "/usr/sbin/exim4", "")
    Path(host.under("/usr/sbin/exim4")).chmod(0o755)
    put(host, CHOICES, "dc_eximconfig_configtype='local'\ndc_other_hostnames=''\n")
    put(host, GENERATED, "a=1\n")
    return host


def done(stdout: str, status: int = 0) -> Done:
    return Done(("exim4",), status, stdout, "")


class Machine:
    """Answers as exim does; remembers what it was asked."""

    def __init__(self, routes: Mapping[str, str], options: str = OPTIONS, full_name: str = "host1") -> None:
        self.routes, self.options = routes, options
        self.asked: list[Sequence[str]] = []
        self.generate: Callable[[Sequence[str]], Done] = lambda argv: done("a=1\n")
        self.tools = Tools(self.ask, lambda argv: self.generate(argv), lambda: full_name, lambda address: True)

    def ask(self, argv: Sequence[str]) -> Done:
        self.asked.append(argv)
        if argv[1] == "-bP":
            return done(self.options + TRANSPORTS)
        name = argv[3].removeprefix("postmaster@")
        return done(self.routes[name].replace("ASKED", argv[3]))


LOCAL = "root@x -> /var/mail/mail\n  transport = address_file\n"
LOST = "ASKED is undeliverable: Mailing to remote domains not supported\n"
DEFERRED = "ASKED cannot be resolved at this time: host lookup did not complete\n"


def check(host: Host, machine: Machine) -> CheckResult:
    return run(host, Request("exim", NOW), machine.tools)


def test_each_name_is_asked_about_once_and_told_in_all_its_roles(host: Host) -> None:
    machine = Machine({"host1.example.org": LOST, "host1": LOCAL})
    result = check(host, machine)
    assert [finding.id for finding in result.findings] == ["exim/own-name"]
    assert [(item["name"], item["roles"], item["verdict"]) for item in result.detail["names"]] == [
        ("host1.example.org", ["qualify_domain"], "refused"),
        ("host1", ["primary_hostname", "hostname -f"], "local"),
    ]
    assert len(machine.asked) == 3 and result.unseen == () and result.again_at is None


def test_a_name_of_which_exim_cannot_tell_is_no_finding_and_asked_about_again(host: Host) -> None:
    result = check(host, Machine({"host1.example.org": DEFERRED, "host1": LOCAL}))
    assert result.findings == () and result.again_at == NOW + AGAIN
    assert result.unseen == ("whether exim keeps mail for host1.example.org: host lookup did not complete",)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name and "\n" not in name])
def test_a_hostile_name_reaches_neither_exim_nor_the_terminal(host: Host, name: str) -> None:
    options = OPTIONS.replace("primary_hostname = host1", f"primary_hostname = {name}")
    machine = Machine({"host1.example.org": LOCAL, "host1": LOCAL}, options, full_name="a\x1b[2J\nb")
    result = check(host, machine)
    assert all(argv[1] == "-bP" or argv[3] == "postmaster@host1.example.org" for argv in machine.asked)
    assert [item["verdict"] for item in result.detail["names"]] == ["local", "unknown", "unknown"]
    assert result.findings == () and "\x1b" not in str(result.detail) + str(result.unseen)


def test_a_hostname_that_fails_is_not_asked_about(host: Host) -> None:
    machine = Machine({"host1.example.org": LOCAL, "host1": LOCAL}, full_name="")
    assert check(host, machine).unseen == () and len(machine.asked) == 3


def test_what_cannot_be_generated_is_unseen_and_the_rest_is_told(host: Host) -> None:
    machine = Machine({"host1.example.org": LOST, "host1": LOCAL})
    machine.generate = lambda argv: done("", 1)
    result = check(host, machine)
    assert [finding.subject for finding in result.findings] == ["own-name"]
    assert result.detail["generated"] is None and "would generate is not known" in result.unseen[0]


def test_names_are_not_asked_about_where_exim_was_never_configured(host: Host) -> None:
    put(host, CHOICES, "dc_eximconfig_configtype='none'\n")
    machine = Machine({})
    result = check(host, machine)
    assert [finding.subject for finding in result.findings] == ["unconfigured"] and len(machine.asked) == 1


def test_where_exim_reads_a_file_of_its_own_debians_files_do_not_matter(host: Host) -> None:
    put(host, CHOICES, "dc_eximconfig_configtype='local'\ndc_use_split_config='true'\n")
    put(host, "/etc/exim4/conf.d/main/00_local.conf", "")
    routes = {"host1.example.org": LOCAL, "host1": LOCAL}
    machine = Machine(routes, OPTIONS.replace(GENERATED, OVERRIDE))
    machine.generate = lambda argv: pytest.fail("generated")
    result = check(host, machine)
    assert [finding.subject for finding in result.findings] == ["override", "helo"]
    assert result.findings[0].severity is Severity.INFO and result.detail["generated"] is None
    assert [finding.subject for finding in check(host, Machine(routes)).findings] == ["ignored-files"]
    Path(host.under(CHOICES)).unlink()
    assert [finding.subject for finding in check(host, machine).findings] == ["helo"]


def test_what_the_host_is_called_is_read_where_it_stands(host: Host) -> None:
    put(host, CHOICES, "dc_eximconfig_configtype='internet'\ndc_other_hostnames=''\n")
    put(host, "/proc/sys/kernel/hostname", "machine\n")
    put(host, "/etc/hosts", "127.0.0.1 localhost machine.example.org machine\n")
    options = OPTIONS.replace("primary_hostname = host1", "primary_hostname = localhost")
    machine = Machine({"host1.example.org": LOCAL, "localhost": LOCAL}, options, full_name="localhost")
    (finding,) = check(host, machine).findings
    assert "write `127.0.1.1 machine.example.org machine` into /etc/hosts above" in finding.advice


def test_the_detail_has_exims_own_view(host: Host) -> None:
    put(host, "/var/log/exim4/mainlog", f"{ARRIVED}\n{LEFT}\n")
    detail = check(host, Machine({"host1.example.org": LOCAL, "host1": LOCAL})).detail
    assert (detail["installed"], detail["generated"], detail["kind"], detail["helo"]) == (True, True, "local", "host1")
    assert (detail["sent_as"], detail["servers"]) == ({"example.org": 1}, ["mx.dest.example [198.51.100.25]"])
    assert detail["transports"][0] == {
        "name": "remote_smtp",
        "interface": "<; 203.0.113.10 ; 2001:db8:1::10",
        "helo_data": "$primary_hostname",
        "return_path": "",
    }


def test_mail_that_leads_back_is_recognised_by_an_address_of_this_host(host: Host) -> None:
    put(host, CHOICES, "dc_eximconfig_configtype='smarthost'\ndc_other_hostnames=''\n")
    away = "ASKED\n  router = smarthost, transport = remote_smtp_smarthost\n  host me [192.0.2.1]\n"
    result = check(host, Machine({"host1.example.org": away, "host1": LOCAL}))
    assert "its mail comes back to this host as me [192.0.2.1]" in result.findings[0].summary


def test_another_root_and_a_host_without_exim_are_not_checked(host: Host, tmp_path: Path) -> None:
    foreign = run(host, Request("exim", NOW))
    assert foreign.findings == () and foreign.detail["foreign"]
    Path(host.under("/usr/sbin/exim4")).unlink()
    assert check(host, Machine({})).detail == {"installed": False}


def test_an_exim_that_cannot_be_asked_is_an_error_and_no_finding(host: Host) -> None:
    tools = replace(Machine({}).tools, ask=lambda argv: done("", 1))
    with pytest.raises(AgentError):
        run(host, Request("exim", NOW), tools)


def test_the_screen_fits_80_columns_with_one_name_in_every_role(host: Host) -> None:
    result = check(host, Machine({"host1.example.org": LOCAL, "host1": LOCAL}))
    detail = result.detail
    detail["names"] = [detail["names"][0] | {"roles": list(ROLES), "name": "mx1.customers.example.org"}]
    findings = [shown(finding) for finding in result.findings]
    printed = write(screen({"v": 1, "findings": findings, "detail": {"exim": detail}, "unseen": []}))
    assert max(map(len, printed.splitlines())) <= 80 and ", ".join(ROLES)[:20] in printed
