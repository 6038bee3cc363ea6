"""The chain from the apt command to the result: while something is stale, and afterwards."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agent.model.facts import Change, StaleFile, StaleProcess, Transaction
from agent.model.findings import Confidence, Finding, Severity, StaleUnit
from agent.model.memory import Recorded
from agent.model.restarts import Attempt, Disposition, Outcome, Result
from agent.model.view import Phase, View
from agent.report.why import ACTIONS, RESULTS, chain_json, explain, lines

APT = datetime(2026, 11, 22, 14, 2, 10, tzinfo=UTC)
OLD, NEW = "3.0.20-1~deb12u2", "3.0.22-1~deb12u2"
SSL = Change("libssl3", "amd64", OLD, NEW)
OTHER = Change("tzdata", "all", "2025a", "2025b")
TRANSACTION = Transaction(7, APT, APT + timedelta(seconds=9), "apt-get upgrade", "alice (1000)", (OTHER, SSL), ())
FILE = StaleFile("/usr/lib/x86_64-linux-gnu/libssl.so.3", "libssl3", OLD, NEW)


def process(pid: int, files: tuple[StaleFile, ...] = (FILE,)) -> StaleProcess:
    return StaleProcess(pid, datetime(2026, 11, 20, 9, 12, tzinfo=UTC), "/usr/sbin/nginx", "nginx", 33, files)


STALE = StaleUnit(
    "nginx.service",
    Disposition.RESTART,
    Confidence.CERTAIN,
    (process(911), process(912)),
    ("CVE-2026-84782",),
    "runs replaced code",
)


def view(stale: StaleUnit | None = STALE, transaction: Transaction | None = TRANSACTION) -> View:
    found = () if stale is None else (Finding("libraries", stale.unit, Severity.WARNING, "", "", stale),)
    return View(Phase.IDLE, "auto", found, APT, transaction)


def recorded(outcome: Outcome | None, transaction: int = 7, unit: str = "nginx.service") -> Recorded:
    attempt = Attempt(3, transaction, unit, "i", APT + timedelta(seconds=20), outcome)
    return Recorded(replace(TRANSACTION, id=transaction), attempt, (f"libssl3 {OLD} → {NEW}",), STALE.processes)


FRESH = Outcome("nginx.service", Result.FRESH, (("stop", 0.25), ("start", 0.5)))


def test_the_whole_chain_while_a_unit_is_stale() -> None:
    chain = explain(view(), "nginx")
    assert [(link.step, link.text) for link in chain] == [
        ("command", "apt-get upgrade, asked for by alice (1000)"),
        ("package", f"libssl3 {OLD} → {NEW}"),
        ("file", f"/usr/lib/x86_64-linux-gnu/libssl.so.3 replaced; in memory: {OLD}"),
        ("process", "nginx[911] /usr/sbin/nginx, started then"),
        ("process", "nginx[912] /usr/sbin/nginx, started then"),
        ("unit", "nginx.service; fixes installed, not in effect: CVE-2026-84782"),
        ("action", "will be restarted: runs replaced code"),
    ]
    assert chain[0].at == APT and chain[1].at == APT + timedelta(seconds=9)


@pytest.mark.parametrize("subject", ["nginx", "nginx.service", "911", "912"])
def test_a_unit_and_each_of_its_processes_have_the_same_chain(subject: str) -> None:
    assert explain(view(), subject) == explain(view(), "nginx.service") != ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"mode": "observe"},
            "would be restarted (runs replaced code), but the mode is observe: agentctl restart nginx.service",
        ),
        (
            {"braked": True, "held": "a.service (failed) did not come back"},
            "would be restarted (runs replaced code), but restarts are held, a.service (failed) did not come back: "
            "agentctl restart --resume",
        ),
        ({"held": "disk full", "trouble": "disk full"}, "would be restarted (runs replaced code), but disk full"),
    ],
)
def test_what_is_not_restarted_by_itself_is_not_said_to_be(changes: dict[str, Any], text: str) -> None:
    assert explain(replace(view(), **changes), "nginx")[-1].text == text


@pytest.mark.parametrize("result", [Result.PRECHECK_FAILED, Result.NOT_RUN])
def test_a_unit_that_was_left_alone_was_not_restarted(result: Result) -> None:
    spared = Outcome("nginx.service", result, hint="its configuration is broken")
    chain = explain(view(replace(STALE, outcome=spared)), "nginx", (recorded(spared, 9),))
    actions = [link for link in chain if link.step == "action"]
    assert actions[0].text == "looked at by aftercare before its restart" and actions[0].at


@pytest.mark.parametrize("subject", ["ngin", "nginx.socket", "91", "9111", "", "ssh", "NGINX"])
def test_nothing_is_known_of_others(subject: str) -> None:
    assert explain(view(), subject, (recorded(FRESH),)) == ()


def test_a_unit_whose_name_is_a_number_is_found_before_a_process() -> None:
    numbered = replace(STALE, unit="911.service", processes=(process(5),))
    shown = replace(view(), findings=(*view().findings, *view(numbered).findings))
    assert any("911.service" in link.text for link in explain(shown, "911"))


def test_the_chain_is_told_after_the_restart_too() -> None:
    chain = explain(view(None), "nginx", (recorded(FRESH), recorded(None, 6)))
    assert [(link.step, link.text) for link in chain] == [
        ("command", "apt-get upgrade, asked for by alice (1000)"),
        ("package", f"libssl3 {OLD} → {NEW}"),
        ("file", f"/usr/lib/x86_64-linux-gnu/libssl.so.3 replaced; in memory: {OLD}"),
        ("process", "nginx[911] /usr/sbin/nginx, started then"),
        ("process", "nginx[912] /usr/sbin/nginx, started then"),
        ("unit", "nginx.service"),
        ("action", "restarted by aftercare"),
        ("result", "fresh again: active, with new processes, none of them stale; after 0.8 s"),
    ]
    assert chain[-1].at == APT + timedelta(seconds=20.75)
    assert chain[-1].detail["result"] == "fresh"


def test_where_nothing_more_is_on_record_the_reasons_are_told() -> None:
    chain = explain(view(None), "nginx", (replace(recorded(FRESH), processes=()),))
    assert ("reason", f"libssl3 {OLD} → {NEW}") in [(link.step, link.text) for link in chain]


def test_the_newest_restart_is_the_one_that_is_told() -> None:
    later = recorded(replace(FRESH, result=Result.FAILED, hint="exit status 1"), 8)
    chain = explain(view(None), "nginx", (later, recorded(FRESH)))
    assert chain[-1].text == "failed to come back; after 0.8 s; exit status 1"
    assert chain[0].detail["transaction"] == 8


def test_a_restart_that_was_cut_short_has_no_known_result() -> None:
    assert explain(view(None), "nginx", (recorded(None),))[-1].text.startswith("not known: aftercare was stopped")


def test_a_restart_whose_transaction_is_forgotten_is_told_without_it() -> None:
    forgotten = replace(recorded(FRESH), transaction=None)
    chain = explain(view(None, None), "nginx", (forgotten,))
    assert chain[0].text == "a package transaction that is not on record"
    steps = ["command", "reason", "file", "process", "process", "unit", "action", "result"]
    assert [link.step for link in chain] == steps


def test_what_stayed_behind_is_told_with_the_restart_that_left_it() -> None:
    left = replace(STALE, disposition=Disposition.LEFTOVER, reason="a detached child")
    outcome = replace(FRESH, result=Result.LEFTOVER)
    chain = explain(view(left), "nginx", (recorded(outcome),))
    assert [(link.step, link.text) for link in chain[-3:]] == [
        ("action", "restarted by aftercare"),
        ("result", "active again, but something of it stayed behind; after 0.8 s"),
        ("action", "stayed behind after a restart: a detached child"),
    ]


def test_a_restart_for_an_earlier_transaction_is_no_part_of_this_chain() -> None:
    steps = [link.step for link in explain(view(), "nginx", (recorded(FRESH, 6),))]
    assert steps.count("action") == 1 and "result" not in steps


def test_a_unit_that_is_down_has_its_chain_from_the_record() -> None:
    failed = Outcome("nginx.service", Result.FAILED, (("start", 1.0),), hint="exit status 1")
    down = StaleUnit("nginx.service", Disposition.LEFTOVER, Confidence.CERTAIN, (), reason="is down", outcome=failed)
    chain = explain(view(down), "nginx", (recorded(failed),))
    assert chain[0].detail["transaction"] == 7
    assert [link.step for link in chain[-3:]] == ["action", "result", "action"]
    assert chain[-2].text == "failed to come back; after 1.0 s; exit status 1"


def test_the_transaction_is_the_newest_that_changed_the_package() -> None:
    unrelated = Transaction(9, APT, APT, "apt-get install cowsay", "root", (Change("cowsay", "all", None, "3"),), ())
    chain = explain(
        view(STALE, unrelated), "nginx", (recorded(FRESH, 8, "ssh.service"), recorded(FRESH, 5, "ssh.service"))
    )
    assert chain[0].detail["transaction"] == 8


def test_what_was_stale_before_the_first_look_has_no_transaction() -> None:
    unknown = replace(FILE, running=None)
    chain = explain(view(replace(STALE, processes=(process(1, (unknown,)),)), None), "nginx")
    assert [link.text for link in chain[:3]] == [
        "a package transaction that is not on record",
        f"libssl3: {NEW} installed, a version that is not on record running",
        "/usr/lib/x86_64-linux-gnu/libssl.so.3 replaced; in memory: a version that is not on record",
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change("libssl3", "amd64", None, NEW), f"libssl3 {NEW} newly installed"),
        (Change("libssl3", "amd64", OLD, None), f"libssl3 {OLD} removed"),
        (Change("libssl3", "amd64", NEW, NEW), f"libssl3 {NEW} installed again"),
    ],
)
def test_each_sort_of_change_has_its_words(change: Change, text: str) -> None:
    assert explain(view(STALE, replace(TRANSACTION, changes=(change,))), "nginx")[1].text == text


def test_a_command_that_is_unknown_is_said_to_be() -> None:
    chain = explain(view(STALE, replace(TRANSACTION, command="", requester="", begun=None)), "nginx")
    assert chain[0].text == "dpkg, by a command that is not on record" and chain[0].at == TRANSACTION.ended


def test_of_very_many_processes_a_few_are_named() -> None:
    many = replace(STALE, processes=tuple(process(pid) for pid in range(100, 160)))
    named = [link for link in explain(view(many), "nginx") if link.step == "process"]
    assert len(named) == 9 and named[-1].text == "and 52 more" and named[-1].detail == {"more": 52}


@pytest.mark.parametrize("disposition", Disposition)
def test_the_action_is_what_the_disposition_says(disposition: Disposition) -> None:
    action = explain(view(replace(STALE, disposition=disposition, reason="")), "nginx")[-1]
    assert action.text == ACTIONS[disposition] and action.detail["disposition"] == disposition.value


def test_every_disposition_and_result_has_words_of_its_own() -> None:
    assert set(ACTIONS) == set(Disposition) and len(set(ACTIONS.values())) == len(Disposition)
    assert set(RESULTS) == set(Result) and len(set(RESULTS.values())) == len(Result)


def test_the_json_has_the_same_chain() -> None:
    chain: list[dict[str, Any]] = chain_json(explain(view(), "nginx"))
    assert {tuple(link) for link in chain} == {("step", "text", "at", "detail")}
    assert chain[0]["at"] == "2026-11-22T14:02:10Z"
    assert chain[1]["detail"] == {"package": "libssl3", "arch": "amd64", "old": OLD, "new": NEW}
    assert chain[3]["detail"] == {
        "pid": 911,
        "start": "2026-11-20T09:12:00Z",
        "exe": "/usr/sbin/nginx",
        "comm": "nginx",
        "uid": 33,
    }


def test_the_lines_fit_a_terminal_and_show_a_date_where_it_changes() -> None:
    shown = lines(explain(view(), "nginx"), 80, timezone(timedelta(hours=1)))
    assert shown == [
        "2026-11-22 15:02:10  command  apt-get upgrade, asked for by alice (1000)",
        "           15:02:19  package  libssl3 3.0.20-1~deb12u2 → 3.0.22-1~deb12u2",
        "                     file     /usr/lib/x86_64-linux-gnu/libssl.so.3 replaced; in",
        "                              memory: 3.0.20-1~deb12u2",
        "2026-11-20 10:12:00  process  nginx[911] /usr/sbin/nginx, started then",
        "           10:12:00  process  nginx[912] /usr/sbin/nginx, started then",
        "                     unit     nginx.service; fixes installed, not in effect:",
        "                              CVE-2026-84782",
        "                     action   will be restarted: runs replaced code",
    ]


HOSTILE = "x\n\x1b[2J\u202e\udcff" + "y" * 300


def test_hostile_names_stay_harmless_and_within_the_width() -> None:
    evil = StaleProcess(5, APT, f"/{HOSTILE}", HOSTILE, 0, (StaleFile(f"/{HOSTILE}", "libssl3", HOSTILE, None),))
    transaction = replace(TRANSACTION, command=HOSTILE, requester=HOSTILE)
    stale = replace(STALE, unit=HOSTILE, processes=(evil,), reason=HOSTILE, cves=(HOSTILE,))
    chain = explain(view(stale, transaction), HOSTILE)
    assert all(link.text.isprintable() for link in chain)
    assert json.dumps(chain_json(chain), ensure_ascii=False).isprintable()
    for line in lines(chain):
        assert line.isprintable() and len(line) <= 80
