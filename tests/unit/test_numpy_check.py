"""The check `numpy`: what is told of environments, what is remembered of them, and when the disk is searched again."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.checks.numpy import look_of, order_of, run, tell
from agent.checks.numpy.environments import SOON, Known, recall
from agent.checks.numpy.judged import NOT_MKL, Judged, judge_all, judge_bound, logins_of
from agent.checks.numpy.users import Use, Users
from agent.checks.numpy.wording import evidence_of, finding_of, repairs_of
from agent.host.loader import envfile
from agent.host.loader.linking import read_linking
from agent.host.loader.variables import Declared, parse_file, parse_units
from agent.host.python.pyusers import read_loaded
from agent.mkl.repairs import Repair
from agent.mkl.verdict import Kind
from agent.model import contract
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request, Severity
from tests.unit.small_elf import cache
from tests.unit.small_python import CORE, MODULES, PLACE, bind, bound, found, mkl, mounts, put, put_library, site, venv

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WEEK = timedelta(days=7)
ROOT = Path(__file__).parents[2]


def check(root: Path, kept: Mapping[str, Any] | None = None, now: datetime = NOW, **options: Any) -> CheckResult:
    """Run the check as a worker would: all that is kept goes through JSON."""
    given = json.loads(json.dumps(dict(kept or {})))
    result = run(Host(str(root)), Request("numpy", now, options=options, kept=given))
    json.dumps(contract.encode(result))
    return result


def verdicts(result: CheckResult) -> dict[str, str]:
    return {row["environment"]: row["verdict"] for row in result.detail["environments"]}


def judged(root: Path, use: Use, state: Mapping[str, Any] | None = None) -> Judged:
    (environment,) = found(root).environments
    return judge_bound(look_of(Host(str(root)), mounts()), environment, state or {}, use)


# What is told


def test_what_fails_is_a_finding_and_what_is_well_is_a_row(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/app")
    bound(tmp_path, "/srv/old", "libmkl_rt.so.1")
    venv(tmp_path, "/srv/wheels")
    result = check(tmp_path)
    assert verdicts(result) == {"/srv/old": "rebuild", "/srv/app": "ok", "/srv/wheels": "not-mkl"}
    assert result.detail["verdicts"] == {"rebuild": 1, "ok": 1, "not-mkl": 1}
    (finding,) = result.findings
    assert (finding.id, finding.severity) == ("numpy//srv/old", Severity.ERROR)
    assert "rebuilt" in finding.summary


def test_the_evidence_has_all_that_is_known_and_the_repairs_in_order(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    place = bound(tmp_path, "/srv/old", "libmkl_rt.so.1")
    put(tmp_path, "/etc/passwd", f"admin:x:{os.geteuid()}:0::/root:/bin/sh\n")
    put(place, "numpy/__config__.py", "blas_mkl_info={'libraries': ['mkl_rt'], 'library_dirs': ['/opt/mkl/lib']}")
    (finding,) = check(tmp_path).findings
    evidence = contract.finding(finding)["evidence"]
    assert evidence["environment"] == "/srv/old"
    assert (evidence["owner"], evidence["kind"], evidence["linkage"]) == ("admin", "venv", "sdl")
    assert (evidence["python"], evidence["numpy"], evidence["scipy"]) == ("3.11.2", "2.3.5", "1.16.3")
    assert evidence["built"] == {"name": "mkl_rt", "version": "", "directory": "/opt/mkl/lib"}
    assert evidence["expected"]["status"] == 1
    assert evidence["expected"]["text"].startswith("ImportError: libmkl_rt.so.1: cannot open shared object file")
    assert [sorted(item) for item in evidence["repairs"]] == [["command", "why"]] * len(evidence["repairs"])
    assert finding.advice == evidence["repairs"][0]["command"]


def test_repairs_within_an_environment_run_its_own_python_as_its_owner_and_never_as_root(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/my app", "libmkl_rt.so.1")
    (environment,) = found(tmp_path).environments
    look = look_of(Host(str(tmp_path)), mounts())
    (item,), _ = judge_all(lambda: look, [replace(environment, uid=1000)], Users())
    commands = [row["command"] for row in evidence_of(item, {1000: "alice"})["repairs"]]
    assert any(command.startswith("sudo -u alice '/srv/my app/bin/python3' -m pip install") for command in commands)
    assert not any(command.startswith("python3") for command in commands)
    (item,), _ = judge_all(lambda: look, [replace(environment, uid=0)], Users())
    commands = [row["command"] for row in evidence_of(item, {})["repairs"]]
    assert any(command.startswith("'/srv/my app/bin/python3' -m pip install") for command in commands)


def test_names_that_a_terminal_would_obey_are_made_printable(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/\x1b[31mred\n\udcff", "libmkl_rt.so.1")
    result = check(tmp_path)
    (finding,) = result.findings
    shown = json.dumps([contract.finding(finding), result.detail], ensure_ascii=False)
    assert "\x1b" not in shown
    assert "\\\\x1b[31mred\\\\x0a\\\\xff" in shown
    assert json.dumps(shown).isprintable()


def test_what_cannot_be_judged_is_no_finding_but_is_told(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    (place / CORE).write_bytes((place / CORE).read_bytes()[:100])
    result = check(tmp_path)
    assert result.findings == ()
    assert verdicts(result) == {"/srv/app": "unknown"}
    assert any(line.startswith("/srv/app: ") and "ELF" in line for line in result.unseen)


def test_there_are_never_more_rows_than_can_be_read(tmp_path: Path) -> None:
    for number in range(305):
        site(tmp_path, f"/srv/{number}/lib/python3.11/site-packages", scipy="")
    detail = check(tmp_path).detail
    assert (len(detail["environments"]), detail["not_shown"], detail["verdicts"]) == (300, 5, {"not-mkl": 305})


# Whose variables


def test_the_variables_of_logins_count(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    put_library(tmp_path, "/opt/half/libmkl_rt.so.2")
    bound(tmp_path, "/srv/app")
    assert verdicts(check(tmp_path)) == {"/srv/app": "ok"}
    put(tmp_path, "/etc/environment", 'LD_LIBRARY_PATH="/opt/half"\nPATH=/bin\n')
    assert verdicts(check(tmp_path))["/srv/app"].startswith("fail-")


def test_a_unit_with_variables_of_its_own_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    put_library(tmp_path, "/opt/half/libmkl_rt.so.2")
    bound(tmp_path, "/srv/app")
    item = judged(tmp_path, Use({"app.service": {"LD_LIBRARY_PATH": "/opt/half"}, "other.service": {}}))
    assert item.verdict.kind is Kind.OK
    assert item.worst.kind not in (Kind.OK, Kind.UNKNOWN)
    finding = finding_of(item, {})
    assert finding and finding.summary.startswith("in app.service: ")
    (unit,) = evidence_of(item, {})["units"]
    assert unit["unit"] == "app.service"
    assert unit["variables"] == {"LD_LIBRARY_PATH": "/opt/half"}


def test_variables_are_read_as_systemd_and_pam_write_them() -> None:
    text = (
        'Id=app.service\nEnvironment=PATH=/x "LD_LIBRARY_PATH=/opt/my mkl" MKL_INTERFACE_LAYER=GNU,LP64\n\n'
        'Id=none.service\nEnvironment=HOME=/\n\nId=odd.service\nEnvironment="LD_BIND_NOW=1\n'
    )
    found = parse_units(text)
    expected = {"LD_LIBRARY_PATH": "/opt/my mkl", "MKL_INTERFACE_LAYER": "GNU,LP64"}
    assert found["app.service"] == Declared(expected)
    assert found["none.service"] == found["odd.service"] == Declared({})
    assert parse_file("# c\nexport MKL_THREADING_LAYER='GNU'\nLD_BIND_NOW = 1\nEDITOR=vi\nnonsense\n") == {
        "MKL_THREADING_LAYER": "GNU",
        "LD_BIND_NOW": "1",
    }


def test_variables_of_a_unit_come_from_its_files_too_and_go_where_it_drops_them(tmp_path: Path) -> None:
    text = (
        "Id=a.service\nEnvironment=MKL_A=1\nUnsetEnvironment=MKL_A MKL_B=2\n"
        "EnvironmentFiles=/etc/default/a b (ignore_errors=yes)\nEnvironmentFiles=/srv/c (ignore_errors=no)\n"
    )
    declared = parse_units(text)["a.service"]
    assert declared == Declared({"MKL_A": "1"}, ("/etc/default/a b", "/srv/c"), frozenset({"MKL_A", "MKL_B"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# MKL_A=1 \\\nMKL_B=2\n; MKL_C=3\nMKL_D=4", {"MKL_D": "4"}),
        ("  MKL_A = x # y  \nMKL_B=\n", {"MKL_A": "x # y", "MKL_B": ""}),
        ('MKL_A=\'a\nMKL_B=2\'\nMKL_C="d \\" \\n"\n', {"MKL_A": "a\nMKL_B=2", "MKL_C": 'd " \\n'}),
        ("MKL_A=a\\\nb\\ \nrubbish\nMKL_A=2\n", {"MKL_A": "2"}),
        ("MKL_A=one\\\ntwo\n", {"MKL_A": "onetwo"}),
    ],
)
def test_a_file_of_variables_is_read_as_systemd_reads_it(text: str, expected: dict[str, str]) -> None:
    assert envfile.parse(text) == expected


def test_a_file_of_variables_that_others_may_write_is_refused(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    place = put(tmp_path, "/etc/default/app", "MKL_A=1\n")
    assert envfile.read_file(host, mounts(), "/etc/default/none") == ""
    if os.geteuid() == 0:
        assert envfile.read_file(host, mounts(), "/etc/default/app") == "MKL_A=1\n"
    place.chmod(0o664)
    (tmp_path / "etc/link").symlink_to("default/app")
    os.mkfifo(tmp_path / "etc/fifo")
    put(tmp_path, "/etc/large", "#" * (envfile.LARGEST + 1))
    for name in ("/etc/default/app", "/etc/link", "/etc/fifo", "/etc/large"):
        with pytest.raises(envfile.Refused, match=name):
            envfile.read_file(host, mounts(), name)


def test_what_a_unit_lacks_is_mended_in_the_unit(tmp_path: Path) -> None:
    variable = Repair("echo MKL_INTERFACE_LAYER=GNU,LP64 >>/etc/environment", "")
    wrong = replace(NOT_MKL, kind=Kind.WRONG_RESULTS, severity="critical", repairs=(variable,))
    venv(tmp_path, "/srv/app")
    (item,) = found(tmp_path).environments
    (row,) = repairs_of(Judged(item, NOT_MKL, units={"my@app.service": ({}, wrong)}), {})
    assert "/etc/environment" not in row["command"]
    assert "{ echo '[Service]'; echo Environment=MKL_INTERFACE_LAYER=GNU,LP64; }" in row["command"]
    assert row["command"].endswith("&& systemctl daemon-reload && systemctl restart my@app.service")
    (row,) = repairs_of(Judged(item, wrong, units={"my@app.service": ({}, NOT_MKL)}), {})
    assert row["command"] == variable.command


def test_what_conda_sets_when_it_activates_counts_for_those_who_work_there_and_not_for_units(tmp_path: Path) -> None:
    script = "export CONDA_BACKUP=${MKL_INTERFACE_LAYER:-}\nexport MKL_INTERFACE_LAYER=LP64,GNU\nexport MKL_X=$(id)\n"
    put(tmp_path, "/opt/conda/etc/conda/activate.d/libblas_mkl_activate.sh", script)
    put(tmp_path, "/opt/conda/conda-meta/python-3.11.2-0.json")
    site(tmp_path, "/opt/conda/lib/python3.11/site-packages")
    (item,) = found(tmp_path).environments
    assert item.kind == "conda"
    look = look_of(Host(str(tmp_path)), mounts())
    assert logins_of(look, item) == {"MKL_INTERFACE_LAYER": "LP64,GNU"}
    assert logins_of(look, replace(item, kind="venv")) == {}


# Processes


def test_who_still_runs_a_replaced_mkl_is_told_and_looked_at_again(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/app")
    item = judged(tmp_path, Use(replaced=("app.service",)))
    assert item.verdict.kind is Kind.RESTART
    host = Host(str(tmp_path))
    order = order_of(host, Request("numpy", NOW), Users())
    result = tell(host, [item], Known(searched=NOW), order)
    assert result.again_at == NOW + timedelta(hours=1)
    (finding,) = result.findings
    assert finding.severity is Severity.WARNING
    assert "app.service" in json.dumps(finding.evidence)


MAPS = """\
7f0000000000-7f0000001000 r--p 00000000 08:01 11 /srv/app/lib/python3.11/site-packages/numpy/_core/a.so
7f0000001000-7f0000002000 r-xp 00001000 08:01 11 /srv/app/lib/python3.11/site-packages/numpy/_core/a.so
7f0000002000-7f0000003000 r-xp 00000000 08:01 12 /srv/app/lib/libmkl_rt.so.2 (deleted)
7f0000003000-7f0000004000 r-xp 00000000 08:01 13 /srv/app/lib/libmkl_core.so.2
7f0000004000-7f0000005000 r-xp 00000000 08:01 14 /usr/lib/python3/dist-packages/psutil/b.so
7f0000005000-7f0000006000 r--p 00000000 08:01 15 /data/lib/python3.11/site-packages/scipy/c.npy
7f0000006000-7f0000007000 r-xp 00000000 00:00 0 [vdso]
"""


def test_a_process_shows_what_it_executes_of_numpy_and_of_a_replaced_mkl(tmp_path: Path) -> None:
    put(tmp_path, "/7/maps", MAPS)
    put(tmp_path, "/8/maps", MAPS.splitlines()[4] + "\n")
    loaded = read_loaded(Host("/", str(tmp_path)), 7)
    assert loaded
    assert loaded.sites == {"/srv/app/lib/python3.11/site-packages"}
    assert loaded.replaced == {"/srv/app/lib/libmkl_rt.so.2"}
    assert read_loaded(Host("/", str(tmp_path)), 8) is None


# What is remembered


def test_the_disk_is_searched_once_a_week_and_known_environments_are_judged_each_time(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/app")
    first = check(tmp_path)
    assert first.again_at == NOW + WEEK
    assert first.keep is not None
    bound(tmp_path, "/srv/new")
    (tmp_path / "opt/mkl/lib/libmkl_rt.so.2").unlink()
    second = check(tmp_path, first.keep, NOW + timedelta(hours=1))
    assert list(verdicts(second)) == ["/srv/app"]
    assert verdicts(second)["/srv/app"] not in ("ok", "ok-unchanged")
    assert second.again_at == NOW + WEEK


def test_when_a_search_is_due_what_is_known_is_told_first(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    first = check(tmp_path)
    venv(tmp_path, "/srv/new")
    due = check(tmp_path, first.keep, NOW + WEEK)
    assert list(verdicts(due)) == ["/srv/app"]
    assert due.detail["searching"] is True
    assert due.again_at == NOW + WEEK + SOON
    after = check(tmp_path, due.keep, NOW + WEEK + SOON)
    assert sorted(verdicts(after)) == ["/srv/app", "/srv/new"]
    assert after.detail["searching"] is False


def test_a_search_is_due_at_once_when_the_linking_of_the_host_or_the_settings_have_changed(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    venv(tmp_path, "/data/app")
    first = check(tmp_path)
    assert check(tmp_path, first.keep).detail["searching"] is False
    wider = check(tmp_path, first.keep, roots=["/data"])
    assert wider.detail["searching"] is True
    assert sorted(verdicts(check(tmp_path, wider.keep, NOW + SOON, roots=["/data"]))) == ["/data/app", "/srv/app"]
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/ld.so.cache").write_bytes(cache(("libfoo.so.1", "/usr/lib/libfoo.so.1")))
    assert check(tmp_path, first.keep).detail["searching"] is False
    (tmp_path / "etc/ld.so.cache").write_bytes(cache(("libmkl_core.so.2", f"{PLACE}/libmkl_core.so.2")))
    assert check(tmp_path, first.keep).detail["searching"] is True


def test_a_search_waits_until_the_linking_has_come_to_rest_but_not_for_ever(tmp_path: Path) -> None:
    """Each flip of an alternative is judged at once; the search that all of them cause comes after the last."""
    venv(tmp_path, "/srv/app")
    (tmp_path / "etc").mkdir()
    result, now, seen = check(tmp_path), NOW, []
    for number in range(33):
        now += timedelta(seconds=4)
        (tmp_path / "etc/ld.so.cache").write_bytes(cache(("libmkl_core.so.2", f"/opt/{number}/libmkl_core.so.2")))
        result = check(tmp_path, result.keep, now)
        assert "/srv/app" in verdicts(result)
        seen.append(result.detail["searching"])
        assert not seen[-1] or now < (result.again_at or now) <= now + SOON
    assert seen[:14] == [True] * 14, "while it moves"
    assert not all(seen), "a search must come once a minute at the latest"
    assert seen.count(False) == 2


def test_a_clock_that_is_set_back_does_not_put_a_search_off(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    due = check(tmp_path, check(tmp_path).keep, NOW + WEEK)
    back = check(tmp_path, due.keep, NOW)
    assert back.again_at is not None and back.again_at <= NOW + WEEK
    assert back.again_at <= NOW + timedelta(minutes=1)


def test_days_between_two_searches_can_be_set(tmp_path: Path) -> None:
    assert check(tmp_path, discover_days=2).again_at == NOW + timedelta(days=2)


def test_the_same_mkl_is_told_from_another_by_its_content(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/app")
    first = check(tmp_path)
    assert verdicts(first) == {"/srv/app": "ok"}
    mkl(tmp_path, PLACE)
    second = check(tmp_path, first.keep)
    assert verdicts(second) == {"/srv/app": "ok-unchanged"}
    mkl(tmp_path, PLACE, salt="a newer one")
    assert verdicts(check(tmp_path, second.keep)) == {"/srv/app": "ok"}


def test_the_mkl_of_every_module_is_remembered(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    mkl(tmp_path, "/opt/other/lib", salt="another one")
    place = bound(tmp_path, "/srv/app")
    bind(place, "/opt/other/lib", "libmkl_rt.so.2", modules=MODULES[3:])
    first = check(tmp_path)
    assert verdicts(first) == {"/srv/app": "ok"}
    assert verdicts(check(tmp_path, first.keep)) == {"/srv/app": "ok-unchanged"}


def test_an_alternative_that_leads_nowhere_any_more_is_a_change(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    target = put(tmp_path, "/opt/mkl/lib/libmkl_rt.so.2")
    put(tmp_path, "/etc/alternatives/other")
    link = tmp_path / "etc/alternatives/libblas.so.3-x86_64-linux-gnu"
    seen = [read_linking(host)]
    link.symlink_to(target)
    seen.append(read_linking(host))
    target.unlink()
    seen.append(read_linking(host))
    put(tmp_path, "/etc/alternatives/vim")
    assert read_linking(host) == seen[-1]
    assert len(set(seen)) == 3


def test_an_environment_without_mkl_is_judged_again_where_it_or_the_linking_has_changed(tmp_path: Path) -> None:
    mkl(tmp_path, PLACE)
    place = venv(tmp_path, "/srv/app")
    first = check(tmp_path)
    bind(place, PLACE, "libmkl_rt.so.2")
    assert verdicts(check(tmp_path, first.keep)) == {"/srv/app": "ok"}
    libblas = "/usr/lib/x86_64-linux-gnu/libblas.so.3"
    put_library(tmp_path, libblas)
    bind(place, "", "libblas.so.3")
    second = check(tmp_path)
    assert verdicts(second) == {"/srv/app": "not-mkl"}
    (tmp_path / libblas[1:]).unlink()
    (tmp_path / libblas[1:]).symlink_to("/etc/alternatives/libblas.so.3-x86_64-linux-gnu")
    put(tmp_path, "/etc/alternatives/keep")
    (tmp_path / "etc/alternatives/libblas.so.3-x86_64-linux-gnu").symlink_to(f"{PLACE}/libmkl_rt.so.2")
    assert verdicts(check(tmp_path, second.keep))["/srv/app"] != "not-mkl"


def test_an_environment_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    first = check(tmp_path)
    (tmp_path / "srv").rename(tmp_path / "elsewhere")
    second = check(tmp_path, first.keep)
    assert verdicts(second) == {}
    assert second.keep is not None and second.keep["states"] == {}


@pytest.mark.parametrize("kept", [{}, {"by": "another version"}, {"by": None, "environments": 3}])
def test_what_another_version_has_kept_or_nobody_understands_is_forgotten(kept: dict[str, Any]) -> None:
    assert recall(kept) == Known()


def test_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    keep = check(tmp_path).keep
    assert keep is not None
    assert recall(keep).environments
    assert recall(keep | {"environments": [[1, 2]]}) == Known()


# Stepping back


@pytest.mark.real
def test_a_search_leaves_disk_and_processor_to_others() -> None:
    code = (
        "import os, ctypes; from agent.checks.numpy.background import step_back; assert step_back(); "
        "import platform; assert platform.machine() != 'x86_64' or ctypes.CDLL(None).syscall(252, 1, 0) >> 13 == 3; "
        "assert os.getpriority(os.PRIO_PROCESS, 0) == 19"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
