"""`agentctl exim`: the check `exim` in full detail, and `--fix ID`, which mends one of its findings.

Without `--fix` it only looks. With it the difference is shown and agreed to first; then `agent.repair` acts as root.
"""

import json
import os
import sys
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from agent.checks import exim as check
from agent.checks.exim.facts import SUBJECTS
from agent.cli.blocks import Block, Entry, Line, Table
from agent.cli.output import emit
from agent.host.mail.exim import generate_exim
from agent.host.mail.exim_pending import Pending, read_pending
from agent.model import contract
from agent.model.errors import AgentError, Exit, Kind
from agent.model.facts import Host
from agent.model.findings import CheckResult, Finding, Request, Severity
from agent.model.text import printable
from agent.repair.apply import apply
from agent.repair.propose import Repair, propose

GRAVE = (Severity.CRITICAL, Severity.ERROR)
SHOWN = 5
VERDICTS = {
    "local": "its own",
    "remote": "leaves for another host",
    "refused": "nowhere: its mail is lost",
    "unknown": "not known",
}
WORDS = {"internet": "mail is sent directly", "local": "mail is delivered here alone", "custom": "a file of your own"}
WORDS |= {"smarthost": "mail goes out through a smarthost", "satellite": "all mail goes to a smarthost"}
WORDS |= {"none": "never configured"}


def exim(options: Namespace) -> int:
    """Print exim's view of itself and what is wrong with it, or mend what `options.fix` names."""
    host = Host()
    if options.fix is not None:
        return _fix(host, options)
    result = _check(host)
    findings = [contract.finding(finding) for finding in result.findings]
    unseen = [printable(line) for line in result.unseen]
    data = {"v": 1, "findings": findings, "detail": {"exim": result.detail}, "unseen": unseen}
    emit(options, data, screen(data))
    if findings:
        return Exit.FINDINGS
    return Exit.UNCHECKED if unseen else Exit.CLEAN


def _check(host: Host) -> CheckResult:
    return check.run(host, Request("exim", datetime.now(UTC)))


def screen(data: dict[str, Any]) -> list[Block]:
    """Return what `agentctl exim` says, from its JSON. Pure."""
    detail, findings = data["detail"]["exim"], data["findings"]
    if not detail.get("installed"):
        return [Line("Exim is not installed.")]
    blocks: list[Block] = [Line(_headline(len(findings)))]
    for item in findings:
        blocks.append(Entry(item["id"], f"{item['summary']}.", item["advice"], item["severity"]))
        if item["evidence"]["repairable"]:
            blocks.append(Line(f"    or: agentctl exim --fix {item['subject']}, which shows the difference first"))
    if detail["names"]:
        rows = tuple((name["name"], f"{', '.join(name['roles'])}: {_fate(name)}") for name in detail["names"])
        blocks.append(Table("Names of this host, and where exim brings their mail", ("name", "as, and its mail"), rows))
    blocks.append(Table("Exim", ("", "as it says itself"), tuple(_rows(detail))))
    return blocks + [Line(f"not known: {line}") for line in data["unseen"]]


def _headline(count: int) -> str:
    if not count:
        return "Nothing is wrong with exim's idea of itself."
    return f"{count} {'thing is' if count == 1 else 'things are'} wrong with exim's idea of itself:"


def _fate(name: dict[str, Any]) -> str:
    more = ", ".join(name["hosts"][:2]) or name["words"]
    return f"{VERDICTS[name['verdict']]} ({more})" if more else VERDICTS[name["verdict"]]


def _rows(detail: dict[str, Any]) -> list[tuple[str, str]]:
    kind = detail["kind"]
    rows = [
        ("configuration", f"{kind}: {WORDS[kind]}" if kind in WORDS else "of unknown type"),
        ("read from", detail["config_file"]),
        ("hostname -f", detail["full_name"] or "fails"),
        ("says HELO", detail["helo"] or "what it expands at delivery"),
        ("local domains", detail["local_domains"]),
        ("sends as", ", ".join(detail["envelope_domains"])),
        (
            "lately sent as",
            ", ".join(f"{domain} ({count})" for domain, count in list(detail["sent_as"].items())[:SHOWN]),
        ),
        ("lately sent to", ", ".join(detail["servers"][:SHOWN])),
        ("smarthost", ", ".join(detail["smarthosts"])),
        ("hubbed", "\n".join(detail["hubbed"])),
    ]
    rows += [(item["name"], f"sends from {item['interface']}") for item in detail["transports"] if item["interface"]]
    rows += [("IPv6", "switched off")] if detail["disable_ipv6"] else []
    return [(name, value) for name, value in rows if value]


def _fix(host: Host, options: Namespace) -> int:
    if os.geteuid() != 0:
        raise AgentError(Kind.DENIED, "only root may mend exim", f"sudo agentctl exim --fix {options.fix}")
    result = _check(host)
    finding = _named(result, options.fix)
    if finding is None:
        return _report(options, f"exim/{_subject(options.fix)}", True, "there is nothing to mend", ())
    return _mend(host, options, result, finding)


def _mend(host: Host, options: Namespace, result: CheckResult, finding: Finding) -> int:
    assert isinstance(finding.evidence, dict)
    if not finding.evidence["repairable"]:
        words = f"this is not mended automatically; by hand: {printable(finding.advice)}"
        return _report(options, finding.id, False, words, ())
    repair = propose(host, finding.id, finding.evidence, _pending(host))
    _show(options, repair)
    if not options.yes and not _agrees():
        return _report(options, finding.id, False, "nothing was changed", repair.diff())
    mended = apply(host, repair, datetime.now(UTC), lambda: _left(result, _check(host), finding))
    return _report(options, finding.id, mended.mended, mended.words, repair.diff(), mended.backups)


def _subject(word: str) -> str:
    return word.removeprefix("exim/")


def _named(result: CheckResult, word: str) -> Finding | None:
    """Return the finding with this id, or last part of it. A word that names none that there can be is a mistake."""
    found = [finding for finding in result.findings if finding.subject == _subject(word)]
    if not found and _subject(word) not in SUBJECTS:
        raise AgentError(Kind.USAGE, f"{word!r} is no finding of exim's", f"known are {', '.join(SUBJECTS)}")
    return found[0] if found else None


def _pending(host: Host) -> Pending | None:
    try:
        return read_pending(host, generate_exim)
    except AgentError:
        return None


def _show(options: Namespace, repair: Repair) -> None:
    """Print what would change; as JSON it comes with the rest."""
    if options.json:
        return
    for line in repair.diff():
        print(line)
    if repair.regenerate:
        print("then: update-exim4.conf, a reload, and the check again", flush=True)


def _agrees() -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise AgentError(Kind.USAGE, "there is no terminal to ask on", "add --yes to go on without being asked")
    print("Do that? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _left(before: CheckResult, after: CheckResult, finding: Finding) -> str:
    """Return why the repair did not do: the finding is still there, there is a worse one, or nobody can tell."""
    for item in after.findings:
        if item.id == finding.id:
            return f"the check still finds: {item.summary}"
        if item.severity in GRAVE and item.id not in {old.id for old in before.findings}:
            return f"the check would then find: {item.summary}. First {item.advice}"
    if len(after.unseen) > len(before.unseen):
        return f"the check cannot tell any more: {after.unseen[-1]}"
    return ""


def _report(
    options: Namespace, finding: str, mended: bool, words: str, diff: tuple[str, ...], backups: tuple[str, ...] = ()
) -> int:
    if options.json:
        data = {"v": 1, "finding": finding, "mended": mended, "words": words, "diff": diff, "backups": backups}
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif mended:
        kept = f" What was before is in {', '.join(backups)}." if backups else ""
        print(f"{finding}: {words or 'mended, and checked'}.{kept}")
    else:
        print(f"{finding} is not mended: {words}", file=sys.stderr)
    return Exit.CLEAN if mended else Exit.FINDINGS
