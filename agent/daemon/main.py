"""aftercared: opens what is needed, arms the watches, serves the socket, and lets the corridor run until told to stop.

Everything is imported at the start: a resident process must not load files later that may have been replaced.
"""

import argparse
import asyncio
import contextlib
import grp
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from agent import __version__
from agent.config.load import vendor
from agent.config.settings import Settings
from agent.daemon.corridor import Corridor
from agent.daemon.doors import Doors
from agent.daemon.requests import Requests
from agent.daemon.watchers import Watchers
from agent.model import contract
from agent.model.errors import AgentError, Exit, Kind
from agent.model.events import Event, Reload, Stop
from agent.model.facts import Host
from agent.report.journal import Journal
from agent.sources.files import FileWatch
from agent.sources.kernel import KernelWatch
from agent.store import Store
from agent.varlink.service import Service

HISTORY = Path("/var/lib/aftercare/history.sqlite")
HOOK_FILE = Path("/run/aftercare/hook")
GROUP = "aftercare"
FIRST_HANDED_IN = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon and return its exit status."""
    parser = argparse.ArgumentParser(prog="aftercared", description="The aftercare daemon; systemd runs it.")
    parser.add_argument("--version", action="version", version=f"aftercared {__version__}")
    parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    try:
        _require()
        return asyncio.run(serve(Host()))
    except AgentError as problem:
        print(f"aftercared: {problem.message}", file=sys.stderr)
        if problem.hint:
            print(f"  {problem.hint}", file=sys.stderr)
        return problem.exit_status


def _require() -> None:
    if os.geteuid() != 0:
        raise AgentError(Kind.DENIED, "aftercared must run as root", "systemctl start aftercare")
    if not os.path.isdir("/run/systemd/system"):
        hint = "agentctl check looks without the daemon"
        raise AgentError(Kind.UNREACHABLE, "systemd does not run here: there are no units to restart", hint)


async def serve(host: Host) -> int:
    """Set everything up, run the corridor, and take everything down again."""
    now = datetime.now(UTC)
    store = Store.open(HISTORY, now)
    watchers = Watchers()
    doors = Doors(host, store, Journal(), watchers, _readers())
    if store.recovered:
        doors.tell("history-recovered", error=store.recovered)
    settings = first_settings(store, doors)
    corridor = Corridor(store, settings, doors)
    async with _open(corridor, doors, watchers):
        doors.tell("started", version=__version__, mode=settings.mode)
        status = await corridor.run()
    doors.stopping()
    store.close()
    return status


def first_settings(store: Store, doors: Doors) -> Settings:
    """Return the configuration, or the last good one; where there is none, the vendor's, and nothing is restarted."""
    try:
        return doors.load_settings()
    except AgentError as problem:
        kept = store.kept_settings()
        doors.tell("config-rejected", error=problem.message, hint=problem.hint)
        return contract.decode(Settings, json.loads(kept)) if kept else replace(vendor(), mode="observe")


@contextlib.asynccontextmanager
async def _open(corridor: Corridor, doors: Doors, watchers: Watchers) -> AsyncIterator[None]:
    """Arm signals, watches and the socket; then say that we are ready. The hook writes only into a file that exists."""
    HOOK_FILE.touch(mode=0o600)
    loop = asyncio.get_running_loop()
    events: dict[signal.Signals, Event] = {
        signal.SIGTERM: Stop(Exit.CLEAN),
        signal.SIGINT: Stop(Exit.CLEAN),
        signal.SIGHUP: Reload(),
    }
    for number, event in events.items():
        loop.add_signal_handler(number, corridor.put, event)
    doors.watch = FileWatch(corridor.put, corridor.complain)
    doors.watch.start(loop)
    kernel = KernelWatch(corridor.put, handed_in())
    telling = asyncio.create_task(doors.notifier.run())
    service = Service(Requests(corridor, watchers).methods(), __version__, _readers())
    try:
        kernel.start(loop)
        async with service.serving():
            doors.ready()
            yield
    finally:
        telling.cancel()
        doors.watch.close()
        kernel.close()


def handed_in() -> int | None:
    """Return the socket that systemd opened for us, on which the packet filter tells of its changes; None: none."""
    ours = os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"
    return FIRST_HANDED_IN if ours else None


def _readers() -> int | None:
    """Return the gid of the group that may read; None where it does not exist."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None
