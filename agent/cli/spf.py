"""`agentctl spf [DOMAIN]`: may this host send its mail, by what DNS publishes? The check `spf` in full detail.

It looks here and now, without the daemon and what that remembers, sends no mail and changes nothing.
"""

import re
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from agent.checks import spf as check
from agent.cli.blocks import Block, Entry, Line, Table, local
from agent.cli.output import emit
from agent.config.load import load
from agent.config.settings import options_of
from agent.model import contract
from agent.model.errors import AgentError, Exit, Kind
from agent.model.facts import Host
from agent.model.findings import Request
from agent.model.text import printable

NAME = re.compile(r"(?!-)(?=.{1,253}\.?\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+\.?")
IDENTITIES = {"mailfrom": "MAIL FROM", "helo": "HELO"}
RECORD_SHOWN = 400


def spf(options: Namespace) -> int:
    """Print every domain that this host sends as, or the one that is asked about, ours or not."""
    domain = options.domain or ""
    if domain and not NAME.fullmatch(domain):
        raise AgentError(Kind.USAGE, f"{printable(domain)!r} is no domain", "write one such as example.org")
    request = Request("spf", datetime.now(UTC), options=options_of(load(), "spf"))
    result = check.tell(check.examine(Host(), request, only=domain), request)
    findings = [contract.finding(finding) for finding in result.findings]
    unseen = [printable(line) for line in result.unseen]
    data = {"v": 1, "findings": findings, "detail": {"spf": result.detail}, "unseen": unseen}
    emit(options, data, screen(data))
    if findings:
        return Exit.FINDINGS
    return Exit.UNCHECKED if unseen else Exit.CLEAN


def screen(data: dict[str, Any]) -> list[Block]:
    """Return what `agentctl spf` says, from its JSON. Pure."""
    detail, findings = data["detail"]["spf"], data["findings"]
    if not detail["sends"]:
        return [Line(f"There is nothing to judge: {detail['silent']}.")]
    blocks: list[Block] = [Line(_headline(len(findings)))]
    for item in findings:
        blocks.append(Entry(item["id"], f"{item['summary']}.", item["advice"], item["severity"]))
    blocks.append(Table("Mail leaves from", ("over", "address"), tuple(map(_source, detail["sources"]))))
    if detail["smarthost"]:
        blocks.append(Line(f"It goes to {detail['smarthost']}, which delivers it from addresses of its own."))
    for row in detail["domains"]:
        blocks += _domain(row)
    if detail["not_shown"]:
        blocks.append(Line(f"and {detail['not_shown']} more domains: agentctl spf DOMAIN shows one"))
    if detail["passed_over"]:
        blocks.append(Line(f"passed over, for no record can be there: {', '.join(detail['passed_over'])}"))
    if detail["forwarded"]:
        words = "lately sent as domains of others, by forwarding (SRS would give such mail an own sender): "
        blocks.append(Line(words + ", ".join(detail["forwarded"])))
    if detail["looked_up"]:
        items = ", ".join(detail["looked_up"])
        words = f"exim looks up more domains of its own by {items}: of these, those are judged that lately sent"
        blocks.append(Line(f"{words}; `domains` in [spf] of aftercare.toml names others"))
    return blocks + [Line(f"not known: {line}") for line in data["unseen"]]


def _headline(count: int) -> str:
    if not count:
        return "Nothing is known to be wrong with what this host sends from."
    return f"{count} {'thing is' if count == 1 else 'things are'} wrong with what this host sends from:"


def _source(source: dict[str, Any]) -> tuple[str, str]:
    family = f"IPv{source['family']}"
    if not source["address"]:
        return family, f"not used: {source['problem']}"
    words = [f"{source['address']} ({source['interface']})"]
    if source["seen"] != [source["address"]]:
        words.append(f"seen as {' or '.join(source['seen'])}" if source["seen"] else f"unknown: {source['problem']}")
    words += [word for word in ("temporary", "dynamic", "pinned") if source[word]]
    return family, ", ".join(words)


def _domain(row: dict[str, Any]) -> list[Block]:
    """One domain: its cells, its record, what there is to say of it and the record that would do."""
    rows = [
        (f"{IDENTITIES[cell['identity']]} over IPv{cell['family']}", cell["verdict"], cell["reason"])
        for cell in row["cells"]
    ]
    blocks: list[Block] = [Table(row["domain"], ("as", "verdict", "why"), tuple(rows))]
    if row["record"]:
        blocks.append(Line(f"    published: {row['record'][:RECORD_SHOWN]}"))
    if row["judged_by"] == "resolver":
        blocks.append(Line("    by this host's resolver alone: the zone's servers do not answer"))
    for remark in row["remarks"]:
        blocks.append(Line(f"    {remark['severity']}: {remark['message']}", remark["severity"]))
        if remark["advice"]:
            blocks.append(Line(f"      {remark['advice']}"))
    if row["proposed"]:
        blocks.append(Line(f"    better: {row['proposed']}"))
        blocks += [Line(f"      {change}") for change in row["changes"]]
    if row["old_until"]:
        blocks.append(Line(f"    resolvers may have an older answer until {local(row['old_until'])}"))
    return blocks
