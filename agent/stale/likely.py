"""What a process likely still runs of packages that changed since it started: no mapping proves it. Pure.

Of the packages that an interpreted program may have read, those count that changed after the process began. What
its dependencies need in turn counts only as far as they bear code of the same language: a daemon in Python does not
import the C library of its library's package, nor what that one's maintainer scripts call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from agent.model.facts import PackageState, Process, Replaced, StaleFile, StaleProcess
from agent.model.findings import Confidence
from agent.stale.judge import BEFORE_US, Verdict

TOLERANCE = timedelta(seconds=2)
"""The kernel tells when it booted in whole seconds, and starts of processes since then."""
MOST_PACKAGES = 1000


def unpacked_at(state: PackageState) -> datetime | None:
    """Return when dpkg unpacked a package last, from its stamp; None: it has no files."""
    nanoseconds = state.stamp.rpartition("-")[2]
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC) if nanoseconds.isdigit() else None


def is_older(start: datetime, changed: datetime | None) -> bool:
    """Return whether what began at `start` began before the change beyond doubt."""
    return changed is not None and start + TOLERANCE < changed


def reach(
    root: str, needs: Mapping[str, Iterable[str]], source: Mapping[str, str], bears: Callable[[str], str]
) -> dict[str, str]:
    """Return the packages whose code a program of the package `root` may have read, and a file of each.

    The file is empty for `root` itself, and for what is built from one source with it. bears: the file that the
    language imports from a package, if any.
    """
    found = {root: ""}
    waiting = [root]
    while waiting and len(found) < MOST_PACKAGES:
        for package in sorted(set(needs.get(waiting.pop(), ())) - found.keys()):
            file = bears(package)
            if file or source.get(package, package) == source.get(root, root):
                found[package] = file
                waiting.append(package)
    return found


def judge(
    process: Process,
    scripts: Mapping[str, str],
    reached: Mapping[str, str],
    installed: Mapping[str, PackageState],
    past: Mapping[str, Sequence[Replaced]] = {},
) -> Verdict | None:
    """Return what `process` likely still runs, None where nothing of it changed since it began.

    scripts: the files that it runs, and their packages. reached: see `reach`. past: what history knows, by package.
    """
    files, causes = [], [BEFORE_US]
    for package, file in sorted(reached.items()):
        state = installed.get(package)
        if state is None or not is_older(process.start, unpacked_at(state)):
            continue
        since = [one for one in past.get(package, ()) if one.ended > process.start]
        if since and all(one.old == one.new for one in since):
            continue
        own = [path for path, owner in scripts.items() if owner == package]
        paths = own or [file or next(iter(scripts))]
        running = _running(process.start, since)
        files += [StaleFile(path, package, running, state.version) for path in paths]
        causes += [one.transaction for one in since]
    if not files:
        return None
    stale = StaleProcess(process.pid, process.start, process.exe, process.comm, process.uid, tuple(files))
    return Verdict(process, stale, (), Confidence.LIKELY, max(causes))


def _running(start: datetime, since: Sequence[Replaced]) -> str | None:
    """Return the version that was there at `start`; None where the first change since may have been before it."""
    first = min(since, key=lambda one: one.ended, default=None)
    if first is None or (len(since) > 1 and not (first.begun and first.begun > start)):
        return None
    return first.old
