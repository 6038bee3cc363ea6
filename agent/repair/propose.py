"""What would mend a finding of the check `exim`: the edited text of each file, to be shown before it is written."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.host.mail.exim_config import CHOICES, GENERATED, NAME, assignments, edited, with_hostnames
from agent.host.mail.exim_pending import Pending
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.text import printable
from agent.repair.files import read

HOSTS = "/etc/hosts"
KEY = "dc_other_hostnames"
REGENERATING = frozenset({"own-name", "not-regenerated", "minimaldns", "broken"})
"""The kinds of findings that update-exim4.conf mends, or brings the repair of into effect."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A file, and what is to be in it instead. generated: update-exim4.conf writes it, and here it is only shown."""

    path: str
    before: bytes
    after: bytes
    generated: bool = False

    def diff(self) -> tuple[str, ...]:
        """Return the difference as a unified diff, each line printable."""
        before, after = (os.fsdecode(side).removesuffix("\n").split("\n") for side in (self.before, self.after))
        lines = difflib.unified_diff(before, after, self.path, self.path, lineterm="")
        return tuple(printable(line.expandtabs()) for line in lines)


@dataclass(frozen=True, slots=True)
class Repair:
    """What would mend a finding. regenerate: whether update-exim4.conf is run after the edits."""

    finding: str
    edits: tuple[Edit, ...]
    regenerate: bool

    def diff(self) -> tuple[str, ...]:
        """Return all that would change, as unified diffs."""
        return tuple(line for edit in self.edits for line in edit.diff())


def propose(host: Host, finding: str, evidence: Mapping[str, Any], pending: Pending | None) -> Repair:
    """Return the repair of the finding with this id and evidence.

    pending: what would be generated as things are; it comes into effect along with the repair, and so is shown.
    Raises AgentError: USAGE where there is no repair, UNREADABLE where a file is not plain enough to be edited.
    """
    kind = evidence["kind"]
    if kind == "own-name":
        edits = _add_hostnames(host, [str(name) for name in evidence["names"]])
    elif kind == "helo":
        edits = _qualify(host, str(evidence["wanted"]), str(evidence["current"]))
    elif kind in REGENERATING:
        edits = ()
    else:
        raise AgentError(
            Kind.USAGE, f"{finding} cannot be mended automatically", "agentctl exim says what to do by hand"
        )
    regenerate = kind in REGENERATING or _freezes_name(host)
    if regenerate and pending and pending.differs:
        sides = (os.fsencode(pending.current), os.fsencode(pending.wanted))
        edits += (Edit(GENERATED, *sides, generated=True),)
    return Repair(finding, edits, regenerate)


def _add_hostnames(host: Host, names: list[str]) -> tuple[Edit, ...]:
    before = read(host, CHOICES)
    text = os.fsdecode(before)
    value = assignments(text).get(KEY, "")
    known = re.split(r"[\s:;]+", (value or "").lower())
    missing = [name for name in names if NAME.fullmatch(name) and name not in known]
    after = None if value is None else edited(text, KEY, with_hostnames(value, missing))
    if after is None:
        raise AgentError(Kind.UNREADABLE, f"{KEY} in {CHOICES} is more than plain text", "edit it by hand")
    return (Edit(CHOICES, before, os.fsencode(after)),) if missing else ()


def _qualify(host: Host, full_name: str, short: str) -> tuple[Edit, ...]:
    """Put the full name first where the short one stands; where it does not, on a line as Debian's installer writes."""
    if not NAME.fullmatch(full_name) or not NAME.fullmatch(short):
        raise AgentError(Kind.USAGE, "the full name of this host is not known", f"write it into {HOSTS}")
    before = read(host, HOSTS)
    lines = os.fsdecode(before).splitlines(keepends=True)
    naming = [number for number, line in enumerate(lines) if short in line.partition("#")[0].split()[1:]]
    if not naming:
        end = "" if not lines or lines[-1].endswith("\n") else "\n"
        return (Edit(HOSTS, before, before + os.fsencode(f"{end}127.0.1.1\t{full_name} {short}\n")),)
    first = re.match(r"(\s*(\S+)\s+)(.*)", lines[naming[0]], re.DOTALL)
    if len(naming) > 1 or first is None or first[2] in ("127.0.0.1", "::1"):
        raise AgentError(Kind.UNREADABLE, f"{HOSTS} has {short} in an unusual place", "edit it by hand")
    lines[naming[0]] = f"{first[1]}{full_name} {first[3]}"
    return (Edit(HOSTS, before, os.fsencode("".join(lines))),)


def _freezes_name(host: Host) -> bool:
    return assignments(os.fsdecode(read(host, CHOICES))).get("dc_minimaldns") == "true"
