"""Goes over all processes with a search, and keeps count of what could not be seen.

Whoever has very many mappings waits until everybody else is done: nobody can make the others wait. What takes
long is announced by way of `progress`, so that a worker that hangs says at what.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.checks.libraries.sighting import MOST_MAPPINGS, Search, find_sightings
from agent.checks.progress import PROGRESS
from agent.host import mappings, processes, readers
from agent.host.mappings import Unseen, Why
from agent.model.facts import Host, Mapped, Retired
from agent.stale.judge import Verdict, judge

USUAL = 4_000
PATIENCE = 15.0
"""Seconds for those that have more."""
ALLOWANCE = 4.0
"""Seconds for the old files of one crowd: any user may have thousands of processes with hundreds of them."""
MOST_NAMED = 5

WORDS = {
    Why.MANY: f"with more than {MOST_MAPPINGS} mappings",
    Why.LATE: f"with more than {USUAL} mappings, or among very many with old files, for want of time",
    Why.FAILED: "that could not be read",
    Why.STUCK: "at which an earlier look got stuck",
    Why.CROWD: "beside several at which earlier looks got stuck",
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What came of it: how many processes there were, those with old files, and the pids that were not seen.

    old: every old file that somebody maps, identical or not. spent: seconds for the files of each crowd, and of all
    together by the name of "".
    """

    count: int
    verdicts: list[Verdict] = field(default_factory=list)
    old: set[Retired] = field(default_factory=set)
    unseen: dict[Why, list[int]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)


def sweep_processes(
    host: Host, search: Search, installed: Mapping[str, str], skip: Sequence[int] = (), crowds: Sequence[str] = ()
) -> Sweep:
    """Return what `search` finds in all processes but our own, `skip` and `crowds`. installed: package → version."""
    pids = [pid for pid in processes.read_pids(host) if pid != os.getpid()]
    done = Sweep(len(pids))
    stuck = sorted(set(skip).intersection(pids))
    beside = [pid for pid in pids if pid not in stuck and processes.read_crowd(host, pid) in crowds] if crowds else []
    done.unseen.update({why: some for why, some in ((Why.STUCK, stuck), (Why.CROWD, beside)) if some})
    skipped = {*stuck, *beside}
    rest = [pid for pid in pids if pid not in skipped]
    _take(host, search, installed, done, readers.scan(host, rest, search.pick, search.engine, USUAL, PROGRESS.over))
    large = PROGRESS.over(_in_time(done, sorted(done.unseen.pop(Why.MANY, []))))
    _take(host, search, installed, done, mappings.scan(host, large, search.pick, search.engine, MOST_MAPPINGS))
    done.verdicts.sort(key=lambda verdict: verdict.process.pid)
    for missed in done.unseen.values():
        missed.sort()
    return done


def _in_time(done: Sweep, pids: Iterable[int]) -> Iterator[int]:
    end = time.monotonic() + PATIENCE
    for pid in pids:
        if time.monotonic() < end:
            yield pid
        else:
            done.unseen.setdefault(Why.LATE, []).append(pid)


def _take(
    host: Host, search: Search, installed: Mapping[str, str], done: Sweep, seen: Iterable[Mapped | Unseen]
) -> None:
    for found in seen:
        missed = found if isinstance(found, Unseen) else _in_turn(host, search, installed, done, found)
        if missed and not processes.is_kernel_thread(host, missed.pid):
            done.unseen.setdefault(missed.why, []).append(missed.pid)


def _in_turn(host: Host, search: Search, installed: Mapping[str, str], done: Sweep, found: Mapped) -> Unseen | None:
    """Examine a process, unless its crowd has had more than its share. It matters who it is when there are many."""
    begun = time.monotonic()
    crowd = processes.read_crowd(host, found.pid) if done.spent.get("", 0.0) > ALLOWANCE else ""
    if done.spent.get(crowd, 0.0) > ALLOWANCE and crowd.endswith(processes.OTHERS):
        return Unseen(found.pid, Why.LATE)
    missed = _examine(host, search, installed, done, found)
    done.spent[crowd] = done.spent.get(crowd, 0.0) + time.monotonic() - begun
    return missed


def _examine(host: Host, search: Search, installed: Mapping[str, str], done: Sweep, found: Mapped) -> Unseen | None:
    """Add the verdict on one process; what was read counts only if it was one process from first to last."""
    if found.ids <= search.alive:
        return None
    try:
        start = processes.read_start(host, found.pid)
        sightings = tuple(find_sightings(host, search, found.pid, found.ids))
        process = processes.read_process(host, found.pid) if sightings else None
        if process is None or processes.read_start(host, found.pid) != start:
            return None
    except (FileNotFoundError, ProcessLookupError):
        return None
    except (OSError, mappings.TooMany):
        return Unseen(found.pid, Why.FAILED)
    done.verdicts.append(judge(process, sightings, installed))
    done.old.update(sighting.old for sighting in sightings)
    return None


def describe_unseen(done: Sweep, search: Search) -> tuple[str, ...]:
    """Return one sentence for each reason why something was not seen."""
    denied = len(done.unseen.get(Why.DENIED, ()))
    whose = "processes that even root may not read" if os.geteuid() == 0 else "processes of other users (not root)"
    sentences = [f"{denied} {whose if denied != 1 else whose.replace('processes', 'process')}"] if denied else []
    for why, words in WORDS.items():
        if pids := done.unseen.get(why):
            more = ", …" if len(pids) > MOST_NAMED else ""
            named = ", ".join(map(str, pids[:MOST_NAMED]))
            sentences.append(f"{len(pids)} process{'' if len(pids) == 1 else 'es'} {words}: {named}{more}")
    for device in sorted(search.lost):
        sentences.append(f"replaced files on device {os.major(device)}:{os.minor(device)}: no file there can be mapped")
    return tuple(sentences)
