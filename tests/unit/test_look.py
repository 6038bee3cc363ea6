"""One look at the machine: what is remembered of it, and when."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.daemon import look, workers
from agent.daemon.workers import Surveyed
from agent.model.events import Looked
from agent.model.facts import Host, PackageState, Snapshot
from agent.model.findings import CheckResult, Request, Survey
from agent.store import Store
from tests.unit.full_disk import full_disk

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOOT = "boot"


def snapshot(version: str) -> Snapshot:
    state = PackageState("libssl3", "amd64", version, "installed", version)
    return {state.key: state}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(tmp_path / "history.sqlite", NOW)
    opened.settle(Survey(snapshot("1"), (), (), (), NOW, "", "", True), (), (), BOOT, NOW)
    return opened


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose workers find version 2 of a package and nothing stale, and that has no systemd."""

    async def survey(*_arguments: object) -> Surveyed:
        return Surveyed(Survey(snapshot("2"), ("libssl3",), (), (), NOW, "apt upgrade", "", False), ())

    async def check(_host: Host, _settings: Settings, request: Request) -> CheckResult:
        return CheckResult(request.check, ())

    monkeypatch.setattr(workers, "survey", survey)
    monkeypatch.setattr(workers, "check", check)
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text(f"{BOOT}\n")
    return Host(root=str(tmp_path), proc=str(tmp_path / "proc"))


def have_look(host: Host, store: Store, locked: bool) -> Looked:
    return asyncio.run(look.look(host, store, Settings(), lambda: locked, force=False))


def test_what_a_look_that_is_given_up_surveyed_is_found_again_by_the_next(host: Host, store: Store) -> None:
    """Remembered at once it would be no change any more, and nothing would ever be checked for it."""
    given_up = have_look(host, store, locked=True)
    assert given_up.abandoned and store.snapshot() == snapshot("1")
    done = have_look(host, store, locked=False)
    assert done.transaction and done.transaction.command == "apt upgrade" and store.snapshot() == snapshot("2")


def test_what_a_full_disk_kept_in_memory_is_written_by_the_next_look_that_can(host: Host, store: Store) -> None:
    with full_disk():
        done = have_look(host, store, locked=False)
        assert done.transaction and store.unwritten
    have_look(host, store, locked=False)
    written = Store.open(Path(host.root, "history.sqlite"), NOW)
    assert not store.unwritten and written.memory().transaction == done.transaction


@pytest.mark.parametrize(("version", "changed"), [("1", False), ("2", True)])
def test_after_a_boot_only_versions_tell_a_change_for_the_disk_may_be_a_copy(
    host: Host, store: Store, monkeypatch: pytest.MonkeyPatch, version: str, changed: bool
) -> None:
    async def survey(*_arguments: object) -> Surveyed:
        copied = {key: replace(state, stamp="another inode") for key, state in snapshot(version).items()}
        return Surveyed(Survey(copied, ("libssl3",), (), (), None, "", "", True), ())

    monkeypatch.setattr(workers, "survey", survey)
    Path(host.proc, "sys/kernel/random/boot_id").write_text("another boot\n")
    assert (have_look(host, store, locked=False).transaction is not None) == changed
    assert store.memory().boot == "another boot"


def test_a_database_in_another_place_is_another_boot(host: Host) -> None:
    database = Path(host.root, "var/lib/dpkg")
    seen = {look.boot_id(host)}
    for _ in range(2):
        database.mkdir(parents=True)
        seen.add(look.boot_id(host))
        database.rename(database.with_name(f"moved-{len(seen)}"))
    assert len(seen) == 3
