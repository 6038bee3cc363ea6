"""`agentctl check`: runs the checks here and now, in this process, without the daemon. It changes nothing.

Without the daemon's history nothing can be certain: what is found is at most likely (DESIGN rule 3).
"""

from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from agent.checks.registry import CHECKS, find, function_of
from agent.cli import foreign
from agent.cli.blocks import Block
from agent.cli.commands import FOREIGN
from agent.cli.output import emit
from agent.config.load import load
from agent.config.settings import Settings, options_of
from agent.model import contract
from agent.model.errors import Exit
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.model.text import printable


def check(options: Namespace) -> int:
    """Run the checks that were named, all by default, and print what they found."""
    host = Host(root=options.root if options.root == "/" else options.root.rstrip("/"))
    settings = load()
    now = datetime.now(UTC)
    results = [function_of(find(name))(host, request_for(name, settings, now)) for name in options.check or CHECKS]
    return _print(options, results, now)


def request_for(name: str, settings: Settings, now: datetime) -> Request:
    """Return what a check is asked when nothing is remembered."""
    return Request(name, now, settings.rules, options=options_of(settings, name))


def _print(options: Namespace, results: list[CheckResult], now: datetime) -> int:
    findings = [contract.finding(finding) for result in results for finding in result.findings]
    data = {
        "v": 1,
        "checked_at": contract.stamp(now),
        "findings": findings,
        "detail": {result.check: result.detail for result in results},
        "unseen": [printable(line) for result in results for line in result.unseen],
    }
    if options.format in FOREIGN:
        return foreign.show(options.format, data, history=False)
    emit(options, data, [] if options.json else _screen(data))
    return Exit.FINDINGS if findings else Exit.CLEAN


def _screen(data: dict[str, Any]) -> list[Block]:
    from agent.cli import screens  # of no use to a program that asks

    return screens.status(data)
