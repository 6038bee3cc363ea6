"""The memory: what is committed together, what survives a crash, and what is done about a broken file."""

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.model.errors import AgentError
from agent.model.facts import Change, FileId, Indexed, PackageState, Retired, Snapshot, StaleProcess
from agent.model.findings import CheckResult, Finding, Severity, Survey
from agent.model.memory import Silence, SilenceKind
from agent.model.restarts import Outcome, Result, Rule, Step
from agent.store import Store, rows
from tests.unit.full_disk import full_disk

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
ALL = ("libraries", "spf")
OLD = FileId(1, 100, 7)
NEW = FileId(1, 200, 8)


def snapshot(version: str) -> Snapshot:
    state = PackageState("libssl3", "amd64", version, "installed", f"stamp {version}")
    return {state.key: state}


def survey(version: str, full: bool = False) -> Survey:
    return Survey(snapshot(version), ("libssl3:amd64",), (), (), NOW, "apt upgrade \udcff", "root", full)


def ssl(version: str, id: FileId, path: str = "/usr/lib/libssl.so.3") -> Indexed:
    return Indexed(path, "libssl3", version, id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(tmp_path / "history.sqlite", NOW)
    opened.settle(survey("1", full=True), (), [ssl("1", OLD)], "boot", NOW)
    return opened


def upgrade(store: Store, version: str = "2", id: FileId = NEW) -> int:
    change = Change("libssl3", "amd64", "1", version)
    transaction = store.settle(survey(version), (change,), [ssl(version, id)], "boot", NOW)
    assert transaction
    return transaction.id


def begin(store: Store, unit: str, transaction: int) -> int:
    return store.begin(transaction, Step(unit, Rule("*"), "inv", 1, (), ("libssl3 1 → 2",)), NOW).id


def test_before_the_first_survey_nothing_is_known(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "new.sqlite", NOW)
    assert store.snapshot() is None
    assert store.memory().begun is None


def test_the_first_survey_is_no_transaction(store: Store) -> None:
    assert store.memory().transaction is None
    assert store.memory().boot == "boot"
    assert store.snapshot() == snapshot("1")


def test_an_upgrade_retires_the_old_inode_with_its_version_and_cause(store: Store) -> None:
    cause = upgrade(store)
    assert store.memory().retired == (Retired("/usr/lib/libssl.so.3", "libssl3", "1", OLD, cause),)
    assert store.memory().transaction and store.memory().transaction.command == "apt upgrade \\udcff"
    assert store.snapshot() == snapshot("2")


def test_a_file_that_kept_its_inode_is_not_retired(store: Store) -> None:
    upgrade(store, id=OLD)
    assert store.memory().retired == ()


def test_an_inode_number_used_again_by_dpkg_is_retired_no_more(store: Store) -> None:
    upgrade(store)
    reused = FileId(OLD.device, OLD.inode, 99)
    store.settle(survey("3"), (Change("libssl3", "amd64", "2", "3"),), [ssl("3", reused)], "boot", NOW)
    assert [old.id for old in store.memory().retired] == [NEW]


def test_a_new_boot_forgets_what_was_retired(store: Store) -> None:
    upgrade(store)
    store.settle(survey("2", full=True), (), [ssl("2", NEW)], "another boot", NOW)
    assert store.memory().retired == ()
    assert store.memory().boot == "another boot"


def test_the_highest_bit_of_an_inode_number_survives(store: Store) -> None:
    high = FileId(1, (1 << 63) + 5, 0)
    upgrade(store, id=high)
    store.settle(survey("3"), (Change("libssl3", "amd64", "2", "3"),), [ssl("3", FileId(1, 1, 1))], "boot", NOW)
    assert high in [old.id for old in store.memory().retired]


def test_a_crash_in_the_middle_of_a_commit_changes_nothing(store: Store, tmp_path: Path) -> None:
    def broken() -> object:
        yield ssl("2", NEW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.settle(survey("2"), (Change("libssl3", "amd64", "1", "2"),), broken(), "boot", NOW)  # type: ignore[arg-type]
    for memory in (store, Store.open(tmp_path / "history.sqlite", NOW)):
        assert memory.memory().transaction is None
        assert memory.memory().retired == ()
        assert memory.snapshot() == snapshot("1")


def test_what_nobody_maps_is_forgotten_only_when_everybody_was_seen(store: Store) -> None:
    upgrade(store)
    store.learn(CheckResult("libraries", (), unseen=("1 process of another user",)))
    assert len(store.memory().retired) == 1
    store.learn(CheckResult("libraries", (), mapped=store.memory().retired))
    assert len(store.memory().retired) == 1
    store.learn(CheckResult("libraries", ()))
    assert store.memory().retired == ()


def test_an_attempt_is_known_as_unended_until_it_has_an_outcome(store: Store) -> None:
    attempt = begin(store, "nginx.service", upgrade(store))
    assert [item.unit for item in store.memory().unended] == ["nginx.service"]
    assert store.memory().attempts == ()
    store.end(attempt, Outcome("nginx.service", Result.FRESH), NOW)
    assert store.memory().unended == ()
    assert store.memory().attempts[0].outcome == Outcome("nginx.service", Result.FRESH)


def test_an_attempt_keeps_what_it_took_along_and_what_was_stale(store: Store) -> None:
    process = StaleProcess(7, NOW, "/usr/sbin/nginx", "nginx", 0, ())
    step = Step("a.service", Rule("*"), "inv", 1, ("b.service",), ("why",), (process,))
    store.begin(1, step, NOW)
    assert store.memory().unended[0].pulls == ("b.service",)
    assert store.restarts()[0].processes == (process,)


def test_a_unit_left_broken_is_remembered_until_it_was_seen_mended(store: Store) -> None:
    store.end(begin(store, "a.service", 1), Outcome("a.service", Result.FAILED), NOW)
    assert [outcome.unit for outcome in store.memory().broken] == ["a.service"]
    store.mend(["a.service"])
    assert store.memory().broken == ()


def test_a_later_success_clears_an_earlier_failure(store: Store) -> None:
    store.end(begin(store, "a.service", 1), Outcome("a.service", Result.FAILED), NOW)
    store.end(begin(store, "a.service", 2), Outcome("a.service", Result.FRESH), NOW)
    assert store.memory().broken == ()


def test_since_is_the_first_sight_and_starts_anew_after_a_gap(store: Store) -> None:
    finding = Finding("libraries", "a", Severity.INFO, "", "", {})
    assert store.date([finding], NOW, ALL)[0].since == NOW
    assert store.date([finding], NOW + timedelta(hours=1), ALL)[0].since == NOW
    store.date([], NOW, ALL)
    assert store.date([finding], NOW + timedelta(hours=2), ALL)[0].since == NOW + timedelta(hours=2)


def test_history_is_newest_first_and_filtered(store: Store) -> None:
    cause = upgrade(store)
    store.end(begin(store, "a.service", cause), Outcome("a.service", Result.FRESH), NOW)
    store.end(begin(store, "b.service", cause), Outcome("b.service", Result.FRESH), NOW)
    assert [item.attempt.unit for item in store.restarts()] == ["b.service", "a.service"]
    assert [item.reasons for item in store.restarts(unit="a.service")] == [("libssl3 1 → 2",)]
    assert store.restarts()[0].transaction and store.restarts()[0].transaction.id == cause
    assert store.restarts(since=NOW + timedelta(seconds=1)) == []


def test_old_history_goes_but_not_what_decides(store: Store) -> None:
    for cause in (1, 2):
        store.end(begin(store, "a.service", cause), Outcome("a.service", Result.FRESH), NOW)
    store.forget(NOW + timedelta(days=1))
    assert [item.attempt.transaction for item in store.restarts()] == [2]
    assert list(store.transactions()) == []


def test_of_units_that_users_name_nothing_stays_for_ever(store: Store) -> None:
    for number in range(3):
        unit = f"user@1000.service/{number}.service"
        store.end(begin(store, unit, 1), Outcome(unit, Result.FRESH), NOW)
    store.forget(NOW + timedelta(days=1))
    assert store.restarts() == []


def test_of_units_that_users_name_the_last_thousand_attempts_decide(store: Store) -> None:
    names = ["a.service", *(f"user@1000.service/{number}.service" for number in range(1001))]
    for name in names:
        store.end(begin(store, name, 1), Outcome(name, Result.FAILED), NOW)
    memory = store.memory()
    assert [attempt.unit for attempt in memory.attempts] == [names[0], *names[2:]]
    assert len(memory.broken) == 1001


@pytest.mark.parametrize("rubbish", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file_is_kept_aside_and_a_new_one_begun(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(rubbish)
    store = Store.open(path, NOW)
    aside = tmp_path / "history.sqlite.broken-20261122T150000"
    assert str(aside) in store.recovered
    assert aside.read_bytes() == rubbish
    assert store.memory().begun is None


def test_a_file_of_another_version_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    assert "schema 99" in Store.open(path, NOW).recovered


def test_the_history_is_for_root_alone(tmp_path: Path, store: Store) -> None:
    assert (tmp_path / "history.sqlite").stat().st_mode & 0o777 == 0o600


def test_what_a_full_disk_cannot_take_is_remembered_in_memory_and_written_when_there_is_room(
    store: Store, tmp_path: Path
) -> None:
    with full_disk():
        cause = upgrade(store)
        store.silence(silence(SilenceKind.ACK))
        assert "history.sqlite, cannot be written" in store.unwritten.message
        store.write_back()
        assert store.unwritten
        assert [old.transaction for old in store.memory().retired] == [cause] and store.snapshot() == snapshot("2")
    assert Store.open(tmp_path / "history.sqlite", NOW).snapshot() == snapshot("1")
    store.write_back()
    assert not store.unwritten
    for memory in (store, Store.open(tmp_path / "history.sqlite", NOW)):
        assert memory.snapshot() == snapshot("2") and [item.id for item in memory.silences()] == ["spf/a"]


def test_an_attempt_that_cannot_be_written_down_is_none(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        with full_disk(), pytest.raises(AgentError, match="cannot be written") as caught:
            begin(store, "nginx.service", 1)
        assert "full" in caught.value.hint
    assert store.memory().unended == ()
    store.write_back()
    assert begin(store, "nginx.service", 1) and Store.open(tmp_path / "history.sqlite", NOW).memory().unended


def test_a_history_on_a_full_disk_is_read_with_what_is_in_its_log_alone(store: Store, tmp_path: Path) -> None:
    """A daemon that was killed leaves its last commits there, and a full disk has no room for SQLite's index of it."""
    upgrade(store)
    (tmp_path / "killed").mkdir()
    for name in ("history.sqlite", "history.sqlite-wal"):
        (tmp_path / "killed" / name).write_bytes((tmp_path / name).read_bytes())
    with full_disk():
        opened = Store.open(tmp_path / "killed/history.sqlite", NOW)
        assert opened.unwritten and opened.snapshot() == snapshot("2")
        opened.keep_settings("new")
    opened.write_back()
    assert not opened.unwritten and opened.kept_settings() == "new"


def test_a_first_start_on_a_full_disk_begins_a_history_in_memory(tmp_path: Path) -> None:
    with full_disk():
        opened = Store.open(tmp_path / "history.sqlite", NOW)
        opened.settle(survey("1", full=True), (), [ssl("1", OLD)], "boot", NOW)
    assert opened.unwritten
    opened.close()
    assert not opened.unwritten and Store.open(tmp_path / "history.sqlite", NOW).snapshot() == snapshot("1")


def test_a_history_that_somebody_else_holds_is_no_endless_wait(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_disk():
        upgrade(store)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *words, **others: connect(*words, **others, timeout=0))
    with contextlib.closing(connect(tmp_path / "history.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.write_back()
        assert store.unwritten and "locked" in store.unwritten.message
    store.write_back()
    assert not store.unwritten


def test_damage_on_the_way_ends_the_daemon_so_that_the_next_start_begins_a_new_history(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "history.sqlite"
    for pragma in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):
        store._database.execute(f"PRAGMA {pragma}").fetchall()
    path.write_bytes(path.read_bytes()[:4096] + b"\x55" * (path.stat().st_size - 4096))
    with pytest.raises(sqlite3.DatabaseError):
        store.keep_settings("new")
    assert "was no database any more" in Store.open(path, NOW).recovered


def test_a_history_that_cannot_be_opened_at_all_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").mkdir()
    with pytest.raises(AgentError) as caught:
        Store.open(tmp_path / "history.sqlite", NOW)
    assert "history.sqlite" in caught.value.message


def test_a_subject_that_is_no_text_is_dated_all_the_same(store: Store) -> None:
    """A program's path may be any bytes; what SQLite cannot take would end the daemon at every start."""
    finding = Finding("libraries", "/home/eve/\udcff\x1b[31m", Severity.INFO, "", "", {})
    assert store.date([finding], NOW, ALL)[0].since == NOW
    assert store.date([finding], NOW + timedelta(hours=1), ALL)[0].since == NOW


def finding(subject: str) -> Finding:
    return Finding("spf", subject, Severity.ERROR, "x", "", {})


def silence(kind: SilenceKind, until: datetime | None = None) -> Silence:
    return Silence("spf/a", kind, "known", 1000, NOW, until)


def test_a_snooze_ends_with_its_time(store: Store) -> None:
    until = NOW + timedelta(days=1)
    store.silence(silence(SilenceKind.SNOOZE, until))
    store.date([], until - timedelta(seconds=1), ALL)
    assert store.memory().silences == (silence(SilenceKind.SNOOZE, until),)
    store.date([finding("a")], until, ALL)
    assert store.memory().silences == ()
    assert store.silences()[0].ended == until


def test_what_was_acknowledged_is_over_with_the_finding(store: Store) -> None:
    store.silence(silence(SilenceKind.ACK))
    store.date([finding("a")], NOW + timedelta(days=400), ALL)
    assert [item.id for item in store.memory().silences] == ["spf/a"]
    store.date([finding("b")], NOW, ALL)
    assert store.memory().silences == ()


def test_the_last_word_on_a_finding_counts_and_all_of_them_are_kept(store: Store) -> None:
    store.silence(silence(SilenceKind.ACK))
    store.silence(silence(SilenceKind.SNOOZE, NOW + timedelta(days=1)))
    assert [item.kind for item in store.memory().silences] == [SilenceKind.SNOOZE]
    store.speak("spf/a", NOW)
    assert store.memory().silences == () and len(store.silences()) == 2


def test_a_unit_that_did_not_come_back_puts_the_brake_on_until_the_next_transaction(store: Store) -> None:
    cause = upgrade(store)
    store.end(begin(store, "good.service", cause), Outcome("good.service", Result.LEFTOVER), NOW)
    assert store.memory().brake == ""
    store.end(begin(store, "nginx.service", cause), Outcome("nginx.service", Result.FAILED), NOW)
    assert store.memory().brake == "nginx.service (failed) did not come back"
    upgrade(store, "3", FileId(1, 300, 9))
    assert store.memory().brake, "a transaction that mended nothing took the brake off"
    store.mend(["nginx.service"])
    upgrade(store, "4", FileId(1, 400, 9))
    assert store.memory().brake == ""


def test_a_user_cannot_keep_the_brake_on_with_a_unit_of_his_own(store: Store) -> None:
    cause = upgrade(store)
    store.end(begin(store, "nginx.service", cause), Outcome("nginx.service", Result.FAILED), NOW)
    theirs = "user@1000.service/x.service"
    store.end(begin(store, theirs, cause), Outcome(theirs, Result.FAILED), NOW)
    assert store.memory().brake == "nginx.service (failed) did not come back"
    store.mend(["nginx.service"])
    upgrade(store, "3", FileId(1, 300, 9))
    assert store.memory().brake == ""


def test_all_that_did_not_come_back_is_named(store: Store) -> None:
    for unit in ("a.service", "b.service"):
        store.end(begin(store, unit, 1), Outcome(unit, Result.FAILED), NOW)
    assert "a.service (failed)" in store.memory().brake and "b.service (failed)" in store.memory().brake


def test_the_brake_can_be_taken_off(store: Store) -> None:
    store.end(begin(store, "nginx.service", 1), Outcome("nginx.service", Result.TIMED_OUT), NOW)
    store.release()
    assert store.memory().brake == ""


def test_what_a_unit_was_away_for_is_the_median_of_its_last_restarts_that_succeeded(store: Store) -> None:
    for seconds in (100.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        took = (("job", seconds), ("settle", 2.0))
        store.end(begin(store, "a.service", 1), Outcome("a.service", Result.FRESH, took), NOW)
    store.end(begin(store, "a.service", 1), Outcome("a.service", Result.TIMED_OUT, (("job", 900.0),)), NOW)
    store.end(begin(store, "b.service", 1), Outcome("b.service", Result.FAILED), NOW)
    assert store.downtimes() == {"a.service": 3.0}


def test_restarts_that_were_refused_do_not_count_as_restarts(store: Store) -> None:
    begin(store, "under.way", 1)
    store.end(begin(store, "a.service", 1), Outcome("a.service", Result.FAILED), NOW)
    store.end(begin(store, "b.service", 1), Outcome("b.service", Result.PRECHECK_FAILED), NOW)
    store.end(begin(store, "c.service", 1), Outcome("c.service", Result.NOT_RUN), NOW)
    assert store.recent(NOW - timedelta(hours=1)) == {"under.way": (NOW,), "a.service": (NOW,)}
    assert store.recent(NOW + timedelta(seconds=1)) == {}


def test_what_a_check_wants_kept_is_there_for_its_next_run(store: Store) -> None:
    assert store.kept("spf") == {}
    store.learn(CheckResult("spf", (), keep={"good": ["a", 1]}))
    store.learn(CheckResult("spf", ()))
    assert store.kept("spf") == {"good": ["a", 1]} and store.kept("exim") == {}


def test_the_cves_of_a_restart_are_on_record(store: Store) -> None:
    step = Step("a.service", Rule("*"), "inv", 1, (), (), cves=("CVE-2026-1",))
    store.begin(1, step, NOW)
    assert store.restarts()[0].cves == ("CVE-2026-1",)


def test_a_history_of_the_first_version_is_brought_to_the_present_form(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(f"{rows.FIRST} PRAGMA user_version=1;")
        columns = "cause, unit, invocation, begun, reasons, processes, pulls"
        values = (1, "a.service", "inv", NOW.isoformat(), "[]", "[]", "[]")
        old.execute(f"INSERT INTO attempts({columns}) VALUES(?, ?, ?, ?, ?, ?, ?)", values)
    store = Store.open(path, NOW)
    assert not store.recovered
    assert store.restarts()[0].attempt.unit == "a.service" and store.restarts()[0].cves == ()
    store.silence(silence(SilenceKind.ACK))
    assert store.memory().silences
