"""What update-exim4.conf would generate now, beside what exim uses, and exim's own words on either.

Debian's tool itself generates it, as exim's user and into a place of its own: nothing that exim reads is touched, and
no line of the result is judged here.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from agent.host.mail.exim_config import GENERATED, read_places, read_text
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.spawn import Done, last_words

SETTING = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)")
ERROR = re.compile(r"Exim configuration error(?: in line (\d+) of (\S+?))?:?\s*\n\s*(.+)")
NO_CONFIGURATION = re.compile(r".*(?:Exim configuration file|configuration file\(s\)).*")
OPEN = frozenset(
    "ETC_MAILNAME MAIN_LOCAL_DOMAINS MAIN_RELAY_TO_DOMAINS MAIN_LOCAL_INTERFACES DCsmarthost DCreadhost "
    "DC_eximconfig_configtype MAIN_HARDCODE_PRIMARY_HOSTNAME".split()
)
"""Macros whose values are never secret."""

Generate = Callable[[Sequence[str]], Done]
"""Runs a program as exim's user with the path of a file as one more argument; `stdout` is what it wrote there."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Exim's own words on a configuration, and the file and line that it names. sources: what that line came from."""

    words: str
    file: str = ""
    line: int | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """The configuration that exim uses, the one that would be generated now, and what exim says of that."""

    current: str
    wanted: str
    complaint: Complaint | None = None

    @property
    def differs(self) -> bool:
        """Whether something was edited and not generated."""
        return self.current != self.wanted

    @property
    def changed(self) -> tuple[str, ...]:
        """The macros and options that differ, by name: values may be secret."""
        sides = (self.current.split("\n"), self.wanted.split("\n"))
        lines = [line[1:] for line in islice(difflib.unified_diff(*sides, n=0), 2, None) if line[0] in "+-"]
        return tuple(dict.fromkeys(found[1] for line in lines if (found := SETTING.match(line))))


def values_of(pending: Pending, name: str) -> tuple[str, str]:
    """Return what a macro is and what it would be; "" where it is not set, or where that may be secret. Pure."""
    if name not in OPEN:
        return "", ""
    return _value(pending.current, name), _value(pending.wanted, name)


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name} *=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def read_pending(host: Host, generate: Generate) -> Pending:
    """Return what exim uses beside what update-exim4.conf would make of its files now.

    Raises AgentError(UNREADABLE) where that cannot be known: a file that may not be read would look like a change.
    """
    done = generate(["update-exim4.conf", "-o"])
    if done.status != 0 or not done.stdout or "Permission denied" in done.stderr:
        raise AgentError(Kind.UNREADABLE, f"what update-exim4.conf would generate is not known: {last_words(done)}")
    current = read_text(host, GENERATED) or ""
    if current == done.stdout:
        return Pending(current, done.stdout)
    tried = generate(["update-exim4.conf", "--check", "-o"])
    if tried.status == 0:
        return Pending(current, done.stdout)
    complaint = complaint_in(tried) or Complaint(last_words(tried))
    return Pending(current, done.stdout, with_sources(host, complaint, done.stdout))


def complaint_in(done: Done) -> Complaint | None:
    """Return exim's complaint about its configuration; None where it says nothing of one. Pure."""
    said = f"{done.stdout}\n{done.stderr}"
    if found := ERROR.search(said):
        return Complaint(found[3].strip(), found[2] or "", int(found[1]) if found[1] else None)
    if missing := NO_CONFIGURATION.search(said):
        return Complaint(missing[0].strip())
    return None


def with_sources(host: Host, complaint: Complaint, text: str) -> Complaint:
    """Return a complaint about a generated text with the places below /etc/exim4 that its line came from."""
    lines = text.split("\n")
    if complaint.line is None or complaint.line > len(lines):
        return complaint
    sources = read_places(host, lines[complaint.line - 1].strip())
    return replace(complaint, sources=sources)
