"""The check `numpy`: which Python environments will fail, or compute wrongly, with the MKL that is installed now.

It looks and says; it changes nothing, and nothing of what it finds is run or imported. What is known is judged first;
a search for new environments is a run of its own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agent.checks.numpy import environments
from agent.checks.numpy.environments import Known, Order
from agent.checks.numpy.judged import Judged, Look, judge_all, state_of
from agent.checks.numpy.users import Users, look_at_users
from agent.checks.numpy.wording import finding_of, row_of
from agent.host.beneath import probe
from agent.host.loader.closure import begin
from agent.host.loader.linking import read_linking
from agent.host.loader.variables import read_login
from agent.host.mounts import Mounts, read_mounts
from agent.host.python.pyroots import read_names
from agent.mkl.verdict import RANK, Kind
from agent.model.contract import stamp
from agent.model.errors import AgentError
from agent.model.errors import Kind as Problem
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.model.text import printable

MOST_ROWS = 300
MOST_NAMED = 5
WHILE_UNHEARD = timedelta(hours=1)
"""No event tells that a process ended which runs a replaced MKL, or that a unit was edited."""


def run(host: Host, request: Request) -> CheckResult:
    """Return which environments their MKL breaks. request.kept: what an earlier run knew of them.

    Raises AgentError(UNREADABLE) where the mounts of this machine cannot be read.
    """
    mounts = mounts_of(host)
    users = look_at_users(host, request.skip, request.crowds)
    order = order_of(host, request, users)
    before = environments.recall(request.kept)
    known = environments.survey(host, mounts, before, order)
    same = environments.unchanged(before, known)
    judged, sentences = judge_all(lambda: look_of(host, mounts), known.environments, users, known.states, same)
    known = replace(known, states={item.environment.site: state_of(item) for item in judged})
    return tell(host, judged, known, order, (*_skipped(users), *sentences))


def mounts_of(host: Host) -> Mounts:
    """Return what is mounted where.

    Raises AgentError(UNREADABLE) where that is not told, or where nothing can be opened in the one safe way.
    """
    try:
        mounts = read_mounts(host)
        probe()
    except OSError as problem:
        message = f"Python environments cannot be looked for: {problem.filename or 'openat2'}: {problem.strerror}"
        raise AgentError(
            Problem.UNREADABLE, message, "this takes Linux 5.6, and a unit without RestrictSUIDSGID="
        ) from problem
    return mounts


def order_of(host: Host, request: Request, users: Users) -> Order:
    """Return what a survey is to look for."""
    return Order(
        now=request.now,
        roots=tuple(request.options.get("roots", ())),
        days=int(request.options.get("discover_days", 7)),
        sites=users.sites,
        linking=read_linking(host),
    )


def look_of(host: Host, mounts: Mounts) -> Look:
    """Return what the verdicts of one run are made with."""
    return Look(host, mounts, begin(host), read_login(host))


def tell(
    host: Host, judged: Sequence[Judged], known: Known, order: Order, sentences: Sequence[str] = ()
) -> CheckResult:
    """Return verdicts as the result of the check, the worst first."""
    names = read_names(host)
    ordered = sorted(judged, key=lambda item: (RANK[item.worst.kind], item.environment.path))
    found = (finding_of(item, names) for item in ordered)
    return CheckResult(
        check="numpy",
        findings=tuple(finding for finding in found if finding),
        detail={
            "environments": [row_of(item, names) for item in ordered[:MOST_ROWS]],
            "not_shown": max(len(ordered) - MOST_ROWS, 0),
            "verdicts": dict(Counter(item.worst.kind.value for item in ordered)),
            "searched": stamp(known.searched),
            "searching": bool(known.waiting),
            "passed_over": [printable(line) for line in known.passed_over],
        },
        unseen=(*known.incomplete, *sentences, *_unknown(ordered)),
        again_at=_again(ordered, known, order),
        keep=environments.keep(known),
    )


def _again(judged: Sequence[Judged], known: Known, order: Order) -> datetime | None:
    unheard = any(item.worst.kind is Kind.RESTART or item.units for item in judged)
    times = (environments.next_run(known, order), order.now + WHILE_UNHEARD if unheard else None)
    return min((time for time in times if time), default=None)


def _unknown(judged: Sequence[Judged]) -> Iterator[str]:
    unknown = [item for item in judged if item.worst.kind is Kind.UNKNOWN or item.environment.problems]
    for item in unknown[:MOST_NAMED]:
        reasons = (*item.environment.problems, *item.worst.evidence, item.worst.summary)
        yield f"{item.environment.path}: {reasons[0]}"
    if len(unknown) > MOST_NAMED:
        yield f"{len(unknown) - MOST_NAMED} more Python environments of which not all could be judged"


def _skipped(users: Users) -> Iterator[str]:
    if users.skipped:
        named = ", ".join(map(str, users.skipped[:MOST_NAMED]))
        yield f"{len(users.skipped)} processes at which a look took too long: {named}"
