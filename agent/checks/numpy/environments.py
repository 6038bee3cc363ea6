"""Which Python environments the check `numpy` looks at: those that it knows, at once, and new ones when it is time.

What it knows comes back with each request, as plain JSON. A search through the disk is put off to a run of its own
where there is anything to be said before.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from agent import RUNNING
from agent.checks.numpy.background import step_back
from agent.host.mounts import Mounts
from agent.host.python.pyenvs import discover, merge, pack, read_sites, recheck, unpack
from agent.host.python.pyfacts import Environment
from agent.host.python.pyroots import find_roots
from agent.host.python.pywalk import Limits
from agent.model.facts import Host

SOON = timedelta(seconds=5)
"""So long after the last change of the linking: an admin who tries this and that causes one search."""
LATEST = timedelta(minutes=1)
WHILE_UNFINISHED = timedelta(minutes=10)
LISTS, TIMES = ("roots", "left", "incomplete", "passed_over"), ("searched", "waiting", "changed")
"""Fields of what is kept."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered from run to run. states: by site directory, plain JSON, see `judged`.

    searched: when the disk was last searched; roots: the extra ones that it was searched with. left: where the next
    search begins. incomplete, passed_over: what that search could not, or would not look at. waiting: since when a
    search is due that was put off. linking, and when it was last seen to change: see `linking.read_linking`.
    """

    environments: tuple[Environment, ...] = ()
    states: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    searched: datetime | None = None
    roots: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    waiting: datetime | None = None
    linking: str = ""
    changed: datetime | None = None


def recall(kept: Mapping[str, Any]) -> Known:
    """Return what an earlier run has kept; nothing where another version of us has, or it is unsound."""
    if kept.get("by") != RUNNING:
        return Known()
    try:
        lists: dict[str, Any] = {name: tuple(kept[name]) for name in LISTS}
        times: dict[str, Any] = {name: datetime.fromisoformat(kept[name]) if kept[name] else None for name in TIMES}
        environments = tuple(map(unpack, kept["environments"]))
        return Known(environments, dict(kept["states"]), linking=str(kept["linking"]), **lists, **times)
    except (LookupError, TypeError, ValueError):
        return Known()


def keep(known: Known) -> dict[str, Any]:
    """Return `known` as plain JSON."""
    return {
        "by": RUNNING,
        "environments": [pack(item) for item in known.environments],
        "states": dict(known.states),
        **{name: list(getattr(known, name)) for name in LISTS},
        **{name: time.isoformat() if (time := getattr(known, name)) else None for name in TIMES},
        "linking": known.linking,
    }


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a survey: extra roots, days between two searches, and the site directories in use."""

    now: datetime
    roots: tuple[str, ...] = ()
    days: int = 7
    sites: frozenset[str] = frozenset()
    linking: str = ""


def survey(host: Host, mounts: Mounts, known: Known, order: Order) -> Known:
    """Return the environments as they are now, searching the disk where that is due and nothing else waits for it.

    Those that are known, and those that running processes show, are looked at in any case.
    """
    current = recheck(host, mounts, known.environments)
    shown = read_sites(host, mounts, order.sites - {item.site for item in current})
    current = merge(current, shown) if shown else current
    changed = order.now if known.linking != order.linking else known.changed
    waiting = min(known.waiting or order.now, order.now) if _is_due(known, order) else None
    now = replace(known, environments=current, linking=order.linking, waiting=waiting, changed=changed)
    if waiting is None or (current and order.now < _begins(now, waiting)):
        return now
    step_back()
    return search(host, mounts, now, order, Limits())


def search(
    host: Host,
    mounts: Mounts,
    known: Known,
    order: Order,
    limits: Limits,
    begin: Callable[[str], None] = lambda root: None,
) -> Known:
    """Return `known` with what a search of the disk finds, beginning where the last one was not finished.

    begin: see `discover`.
    """
    roots = find_roots(host, mounts, order.roots)
    shown = read_sites(host, mounts, order.sites)
    found = discover(host, mounts, _in_turn(roots, known.left), limits, begin=begin)
    return replace(
        known,
        environments=merge((*known.environments, *shown), found.environments),
        searched=order.now,
        roots=order.roots,
        left=found.left,
        incomplete=found.incomplete,
        passed_over=found.passed_over,
        waiting=None,
    )


def next_run(known: Known, order: Order) -> datetime | None:
    """Return when the check wants to be run again: to search."""
    if known.waiting:
        return _begins(known, known.waiting)
    if known.left:
        return order.now + WHILE_UNFINISHED
    return known.searched + timedelta(days=order.days) if known.searched else None


def unchanged(before: Known, now: Known) -> frozenset[str]:
    """Return the site directories of which nothing has changed, nor the linking of the host."""
    if before.linking != now.linking:
        return frozenset()
    old = {item.site: item for item in before.environments}
    return frozenset(item.site for item in now.environments if old.get(item.site) == item)


def _begins(known: Known, waiting: datetime) -> datetime:
    """Return when to search, that being due since `waiting`: once nothing has moved for a while, but soon enough."""
    return min(max(waiting, known.changed or waiting) + SOON, waiting + LATEST)


def _is_due(known: Known, order: Order) -> bool:
    if known.searched is None or known.waiting or known.roots != order.roots or known.linking != order.linking:
        return True
    pause = WHILE_UNFINISHED if known.left else timedelta(days=order.days)
    return not known.searched <= order.now < known.searched + pause


def _in_turn(roots: Sequence[str], left: Iterable[str]) -> list[str]:
    first = set(left)
    return sorted(roots, key=lambda root: root not in first)
