"""What is wrong with exim's idea of itself: facts in, findings out. Pure: it asks and reads nothing.

Each finding says in its advice the command or the line that mends it, and in its evidence what a repair needs. What
is not known is no finding (DESIGN rule 7). Here is what concerns files; names are judged in `names`.
"""

import re
from collections.abc import Iterator

from agent.checks.exim.facts import REGENERATE, Facts, fault
from agent.checks.exim.names import helo, own_names
from agent.host.mail.exim_config import CHOICES, GENERATED, LOCAL_MACROS, OVERRIDE
from agent.host.mail.exim_pending import Complaint, values_of
from agent.model.findings import Finding, Severity
from agent.model.text import printable

FROZEN = "MAIN_HARDCODE_PRIMARY_HOSTNAME"
"""The macro that dc_minimaldns makes of the host name."""
SHOWN = 3


def judge(facts: Facts) -> tuple[Finding, ...]:
    """Return what is wrong, each with its repair; an empty tuple where nothing is."""
    if facts.exim.complaint:
        return (_broken(facts, facts.exim.complaint),)
    return (*_edits(facts), *_overruled(facts), *own_names(facts), *_interfaces(facts), *_ignored(facts), *helo(facts))


def _broken(facts: Facts, complaint: Complaint) -> Finding:
    """The file on disk is what every delivery reads: no mail moves until it is mended."""
    summary = f"exim does not run, its configuration is broken: {_place(complaint)}{complaint.words:.200}"
    mended = bool(facts.pending and facts.pending.differs and not facts.pending.complaint)
    return fault(
        "broken",
        Severity.CRITICAL,
        summary,
        REGENERATE if mended else _mend(complaint),
        files=complaint.sources or ([complaint.file] if complaint.file else []),
        current=complaint.words,
        repairable=mended,
    )


def _place(complaint: Complaint) -> str:
    return f"line {complaint.line} of {complaint.file}: " if complaint.line else ""


def _mend(complaint: Complaint) -> str:
    """What exim names is generated; what it came from is to be mended."""
    named = f"{complaint.file}:{complaint.line}" if complaint.file == OVERRIDE else "the files below /etc/exim4"
    return f"mend {complaint.sources[0] if complaint.sources else named}, then: {REGENERATE}"


def _edits(facts: Facts) -> Iterator[Finding]:
    """What was changed below /etc and is not in effect."""
    pending, exim = facts.pending, facts.exim
    if pending is None or not pending.differs:
        return
    if pending.complaint:
        yield fault(
            "broken-edit",
            Severity.ERROR,
            f"exim's files were edited into something broken: {pending.complaint.words:.200}. Its next start will fail",
            _mend(pending.complaint),
            files=pending.complaint.sources,
            current=pending.complaint.words,
        )
        return
    changed = pending.changed
    if changed == (FROZEN,):
        yield fault(
            "minimaldns",
            Severity.WARNING,
            f"exim still calls this host {exim.primary_hostname}: dc_minimaldns froze its name before it was renamed",
            REGENERATE,
            names=[exim.primary_hostname],
            files=[GENERATED],
            current=exim.primary_hostname,
            wanted=facts.full_name,
            repairable=True,
        )
        return
    current, wanted = values_of(pending, changed[0]) if changed else ("", "")
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    yield fault(
        "not-regenerated",
        Severity.WARNING,
        f"exim's files were edited, but it still uses what was generated before: {', '.join(changed[:SHOWN])}{more}",
        REGENERATE,
        names=changed,
        files=[GENERATED],
        current=current,
        wanted=wanted,
        repairable=True,
    )


def _overruled(facts: Facts) -> Iterator[Finding]:
    exim = facts.exim
    if exim.config_file == OVERRIDE and exim.choices is not None:
        yield fault(
            "override",
            Severity.INFO,
            f"{OVERRIDE} overrules everything that update-exim4.conf generates: edits of its files have no effect",
            f"if that is meant: agentctl ack exim/override; else: mv {OVERRIDE} {OVERRIDE}.off && {REGENERATE}",
            files=[OVERRIDE],
            current=OVERRIDE,
            wanted=GENERATED,
        )
    if exim.kind == "none":
        yield fault(
            "unconfigured",
            Severity.WARNING,
            "exim is installed and was never configured: no mail is delivered, not even to root",
            "dpkg-reconfigure exim4-config",
            files=[CHOICES],
            current="dc_eximconfig_configtype='none'",
        )


def _interfaces(facts: Facts) -> Iterator[Finding]:
    if not facts.lost:
        return
    first = facts.lost[0]
    gone = sorted({item.address for item in facts.lost})
    places = [place for address in gone for place in facts.places.get(address, ())]
    where = places[0] if places else facts.exim.config_file
    yield fault(
        "interface",
        Severity.CRITICAL,
        f"{first.transport} sends from {first.address}, which this host does not have: all such mail is deferred",
        f"write an address of this host (ip address) in place of {', '.join(gone)} at {where}, then: {REGENERATE}",
        names=gone,
        files=places,
        current=first.interface,
    )


def _ignored(facts: Facts) -> Iterator[Finding]:
    if not facts.ignored:
        return
    first = facts.ignored[0]
    directory, _, name = first.rpartition("/")
    better = re.sub(r"[^A-Za-z0-9_-]+", "_", name.removesuffix(".conf").removesuffix(".rul"))
    macros = first == LOCAL_MACROS
    target = "/etc/exim4/conf.d/main/000_localmacros" if macros else f"{directory}/{better}"
    quoted = "'{}'".format(printable(first).replace("'", "'\\''"))
    reason = "the configuration is split" if macros else "of its name"
    yield fault(
        "ignored-files",
        Severity.WARNING,
        f"update-exim4.conf does not read {first} because {reason}"
        + (f", nor {len(facts.ignored) - 1} more" if facts.ignored[1:] else ""),
        f"mv -n {quoted} {target} && {REGENERATE}",
        files=facts.ignored,
        current=first,
        wanted=target,
    )
