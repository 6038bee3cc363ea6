"""Exim's own view of itself: who it is, how it sends, under which names. Asked of exim, never guessed.

One `exim4 -bP` as exim's user, and Debian's files as text. No name is ever put into an expansion (DESIGN rule 5), and
nothing is judged. What exim leaves to an expansion of its own is told as it stands, or as unknown.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.host.mail.exim_config import GENERATED, MOST_NAMES, NAME, Choices, items_of, read_choices, read_text
from agent.host.mail.exim_pending import Complaint, complaint_in, with_sources
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.spawn import Done, last_words
from agent.spawn.transient import run_as, run_into

USER = "Debian-exim"
PROGRAM = "/usr/sbin/exim4"
ASKED = (
    "primary_hostname",
    "qualify_domain",
    "smtp_active_hostname",
    "disable_ipv6",
    "+local_domains",
    "config_file",
    "transports",
)
"""What one `-bP` is asked for. Exim answers each with one line, escapes newlines, and says what it does not know."""
REWRITTEN = "/etc/email-addresses"
HUBBED = "/etc/exim4/hubbed_hosts"
TIMEOUT = 8.0
"""Seconds: with three names and no resolver that answers, the check still ends within its limit."""
LONGEST_ANSWER = 1 << 20
TRANSPORT = re.compile(r"^(\S+) transport:$", re.MULTILINE)
OWN_NAME = frozenset({"$primary_hostname", "${primary_hostname}"})
ACTIVE_NAME = frozenset({"$smtp_active_hostname", "${smtp_active_hostname}"})

Ask = Callable[[Sequence[str]], Done]
"""Runs a program as exim's user."""


@dataclass(frozen=True, slots=True)
class Transport:
    """A transport that speaks SMTP; its options as they stand in the configuration, unexpanded."""

    name: str
    interface: str = ""
    helo_data: str = ""
    return_path: str = ""


@dataclass(frozen=True, slots=True)
class Exim:
    """Exim as it says that it is. With a `complaint` its configuration is broken, and the rest is empty.

    kind: Debian's configuration type (internet, smarthost, satellite, local, none), or custom where exim reads another
    file than Debian's, or "" where that is not known. helo: what it calls itself, "" where that is expanded at
    delivery. envelope_domains: what the configuration sends as; any local user may choose others where
    `untrusted_set_sender` is set. smarthosts and hubbed (domain, hosts) as they are written, with ports.
    """

    kind: str = ""
    primary_hostname: str = ""
    qualify_domain: str = ""
    disable_ipv6: bool = False
    local_domains: str = ""
    config_file: str = ""
    helo: str = ""
    transports: tuple[Transport, ...] = ()
    smarthosts: tuple[str, ...] = ()
    hubbed: tuple[tuple[str, str], ...] = ()
    envelope_domains: tuple[str, ...] = ()
    choices: Choices | None = None
    complaint: Complaint | None = None


def ask_exim(argv: Sequence[str]) -> Done:
    """Run a program of exim's as its user: the `Ask` that the machine itself has."""
    return run_as(USER, argv, timeout=TIMEOUT)


def generate_exim(argv: Sequence[str]) -> Done:
    """Have a program of exim's write a file that only we see: the `Generate` that the machine itself has."""
    return run_into(USER, argv, timeout=TIMEOUT)


def read_exim(host: Host, ask: Ask = ask_exim) -> Exim | None:
    """Return what exim says of itself; None where it is not installed.

    Raises AgentError where it cannot be asked. A broken configuration is an answer, with exim's complaint.
    """
    if not os.access(host.under(PROGRAM), os.X_OK):
        return None
    done = ask([PROGRAM, "-bP", *ASKED])
    said = parse_options(done.stdout.partition("\n\n")[0])
    choices = read_choices(host)
    if done.status == 0 and "primary_hostname" in said:
        return _exim(host, said, parse_transports(done.stdout), choices)
    complaint = complaint_in(done)
    if complaint is None:
        silent = f"it did not answer within {TIMEOUT:g} s, as where no name server does"
        raise AgentError(Kind.UNREADABLE, f"exim4 -bP: {last_words(done) if done.stderr.strip() else silent}")
    generated = read_text(host, GENERATED) if complaint.file == GENERATED else None
    return Exim(choices=choices, complaint=with_sources(host, complaint, generated or ""))


def _exim(host: Host, said: dict[str, str], transports: tuple[Transport, ...], choices: Choices | None) -> Exim:
    debian = said.get("config_file", "") in ("", GENERATED)
    kind = (choices.kind if choices else "") if debian else "custom"
    primary = said["primary_hostname"]
    exim = Exim(
        kind=kind,
        primary_hostname=primary,
        qualify_domain=said.get("qualify_domain", ""),
        disable_ipv6=said.get("disable_ipv6") == "true",
        local_domains=said.get("local_domains", ""),
        config_file=said.get("config_file", ""),
        helo=helo_of(sending(transports, kind), primary, said.get("smtp_active_hostname", "")),
        transports=transports,
        smarthosts=choices.smarthosts if choices and kind in ("smarthost", "satellite") else (),
        hubbed=read_hubbed(host),
        choices=choices,
    )
    return _with_domains(exim, read_rewritten(host))


def parse_options(text: str) -> dict[str, str]:
    """Return the main options that `exim4 -bP` printed; switches are "true" or "false". Pure."""
    found: dict[str, str] = {}
    for line in text[:LONGEST_ANSWER].split("\n"):
        name, equals, value = line.partition(" =")
        if line.startswith("/"):
            found.setdefault("config_file", line)
        elif equals:
            found.setdefault(name.removeprefix("domainlist "), value.strip())
        elif line and " " not in line:
            found.setdefault(line.removeprefix("no_"), "false" if line.startswith("no_") else "true")
    return found


def parse_transports(text: str) -> tuple[Transport, ...]:
    """Return those of the transports that `exim4 -bP transports` printed that speak SMTP to others. Pure."""
    parts = TRANSPORT.split(text[:LONGEST_ANSWER])
    blocks = [(name, parse_options(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)]
    options = ("interface", "helo_data", "return_path")
    return tuple(
        Transport(name, *(said.get(option, "") for option in options))
        for name, said in blocks[:MOST_NAMES]
        if said.get("driver") == "smtp" and said.get("protocol") != "lmtp"
    )


def sending(transports: Sequence[Transport], kind: str) -> Transport | None:
    """Return the transport that most mail leaves by. Pure."""
    usual = "remote_smtp_smarthost" if kind in ("smarthost", "satellite") else "remote_smtp"
    return next((item for item in transports if item.name == usual), transports[0] if transports else None)


def helo_of(transport: Transport | None, primary: str, active: str) -> str:
    """Return the name that a transport says HELO with; "" where exim only knows at delivery. Pure."""
    data = transport.helo_data if transport else ""
    if data in ACTIVE_NAME:
        data = active or "$primary_hostname"
    if data in OWN_NAME:
        return primary
    return "" if "$" in data else data


def _with_domains(exim: Exim, rewritten: Sequence[str]) -> Exim:
    """Return `exim` with the domains that its configuration sends as, each once, in lower case."""
    choices = exim.choices
    hidden = exim.kind in ("smarthost", "satellite") and choices is not None and choices.hide_mailname
    readhost = [choices.readhost] if hidden and choices else []
    names = [exim.qualify_domain, *readhost, *rewritten, *own_domains(exim)]
    domains = [name.lower() for name in names if NAME.fullmatch(name) and name.lower() != "localhost"]
    return replace(exim, envelope_domains=tuple(dict.fromkeys(domains))[:MOST_NAMES])


def own_domains(exim: Exim) -> list[str]:
    """Return the items of local_domains, `@` being the host's own name. Pure."""
    return [exim.primary_hostname if item == "@" else item for item in items_of(exim.local_domains)]


def looked_up_domains(exim: Exim) -> list[str]:
    """Return the items of local_domains of which only exim knows what they name: lookups, and lists in files. Pure."""
    return [item for item in items_of(exim.local_domains) if ";" in item or item.startswith("/")]


def read_rewritten(host: Host) -> tuple[str, ...]:
    """Return the domains that /etc/email-addresses gives to senders."""
    addresses = (value for _, value in _rows(host, REWRITTEN))
    domains = (address.rpartition("@")[2].strip().lower() for address in addresses)
    return tuple(dict.fromkeys(name for name in domains if NAME.fullmatch(name)))[:MOST_NAMES]


def read_hubbed(host: Host) -> tuple[tuple[str, str], ...]:
    """Return the domains that hubbed_hosts sends to hosts of their own: directly, also past a smarthost."""
    return tuple(_rows(host, HUBBED))[:MOST_NAMES]


def _rows(host: Host, path: str) -> Iterator[tuple[str, str]]:
    """Yield key and value of a file of exim's `lsearch`; continued lines are not followed."""
    for line in (read_text(host, path) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith(("#", " ", "\t")):
            yield key.strip(), value.strip()
