"""`agentctl numpy`, `numpy why`, `numpy predict`, `numpy prove`: what they print, and how they end."""

import json
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.checks.numpy.judged import interpreter
from agent.cli import environments as shown
from agent.cli import numpy as commands
from agent.cli.blocks import write
from agent.mkl.proof import MARK, PROGRAM, Outcome, Proof, agrees, judge
from agent.model.errors import AgentError, Exit
from tests.unit.small_python import PLACE, bound, found, mkl, put, venv


def asked(root: Path, capsys: pytest.CaptureFixture[str], command: str, **options: Any) -> tuple[int, Any]:
    """Return the exit status and the JSON of a command."""
    given = {"json": True, "all": False, "environment": "", "root": str(root), "tests": False} | options
    status = getattr(commands, command)(Namespace(**given))
    return status, json.loads(capsys.readouterr().out)


# numpy


def test_numpy_tells_which_environments_fail_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/app")
    bound(tmp_path, "/srv/old", "libmkl_rt.so.1")
    venv(tmp_path, "/srv/wheels")
    put(tmp_path, "/var/lib/dpkg/info/none.list")
    status, data = asked(tmp_path, capsys, "numpy")
    assert status == Exit.FINDINGS
    assert [(row["environment"], row["verdict"]) for row in data["environments"]] == [
        ("/srv/old", "rebuild"),
        ("/srv/app", "ok"),
    ]
    assert (data["count"], data["hidden"], data["unseen"]) == (3, 1, [])
    assert [finding["id"] for finding in data["findings"]] == ["numpy//srv/old"]
    text = write(shown.overview(data))
    assert "1 of 3 Python environments is broken by MKL." in text
    assert "1 without MKL: agentctl numpy --all shows them." in text
    assert "ImportError: libmkl_rt.so.1: cannot open shared object file" in text


def test_numpy_all_shows_those_without_mkl_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv(tmp_path, "/srv/wheels")
    status, data = asked(tmp_path, capsys, "numpy", all=True)
    assert status == Exit.CLEAN
    assert [row["verdict"] for row in data["environments"]] == ["not-mkl"]
    text = write(shown.overview(data))
    assert "None of the one Python environment found is broken by MKL." in text
    assert "/srv/wheels" in text


def test_a_machine_without_numpy_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, data = asked(tmp_path, capsys, "numpy")
    assert status == Exit.CLEAN
    assert write(shown.overview(data)).startswith("No Python environment with numpy")


# numpy why


def test_why_tells_what_python_would_say_and_what_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mkl(tmp_path, PLACE)
    bound(tmp_path, "/srv/old", "libmkl_rt.so.1")
    status, data = asked(tmp_path, capsys, "numpy_why", environment="/srv/old/")
    assert status == Exit.FINDINGS
    assert (data["verdict"], data["severity"]) == ("rebuild", "error")
    text = write(shown.why(data))
    assert "Python would end with exit status 1 and say:" in text
    assert "What helps, in this order:\n  1.\n" in text
    assert "→ apt-get install intel-oneapi-mkl-core-2021.4" in text


def test_why_takes_the_site_directory_for_the_environment_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv(tmp_path, "/srv/app")
    status, data = asked(tmp_path, capsys, "numpy_why", environment="/srv/app/lib/python3.11/site-packages")
    assert (status, data["environment"], data["verdict"]) == (Exit.CLEAN, "/srv/app", "not-mkl")


def test_why_refuses_what_is_no_environment_and_what_is_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "srv").mkdir()
    with pytest.raises(AgentError, match="/srv is no Python environment") as none:
        asked(tmp_path, capsys, "numpy_why", environment="/srv")
    venv(tmp_path, "/srv/a")
    venv(tmp_path, "/srv/b")
    with pytest.raises(AgentError, match="there are 2 Python environments below /srv") as several:
        asked(tmp_path, capsys, "numpy_why", environment="/srv")
    assert none.value.exit_status == several.value.exit_status == Exit.USAGE
    assert "/srv/a" in several.value.hint


# numpy predict


def test_predict_tells_what_another_mkl_would_break(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mkl(tmp_path, PLACE)
    mkl(tmp_path, "/data/newer/lib", ".so.3")
    mkl(tmp_path, "/data/same/lib", salt="another build")
    bound(tmp_path, "/srv/app")
    venv(tmp_path, "/srv/wheels")
    status, data = asked(tmp_path, capsys, "numpy_predict", mkl="/data/newer")
    assert status == Exit.FINDINGS
    (row,) = data["predictions"]
    assert (data["mkl"], row["environment"], row["now"]) == ("/data/newer/lib", "/srv/app", "ok")
    assert row["then"] in ("rebuild", "fail-missing")
    assert "/srv/app" in write(shown.prediction(data))
    status, data = asked(tmp_path, capsys, "numpy_predict", mkl="/data/same/lib")
    assert (status, [row["then"] for row in data["predictions"]]) == (Exit.CLEAN, ["ok"])


def test_predict_takes_the_name_of_an_installed_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mkl(tmp_path, PLACE)
    mkl(tmp_path, "/opt/intel/oneapi/mkl/2026.0/lib", ".so.3")
    bound(tmp_path, "/srv/app")
    package = "intel-oneapi-mkl-core-2026.0"
    fields = "Status: install ok installed\nArchitecture: amd64\nVersion: 2026.0.0-1"
    put(tmp_path, "/var/lib/dpkg/status", f"Package: {package}\n{fields}\n\n")
    put(tmp_path, f"/var/lib/dpkg/info/{package}.list", "/.\n/opt/intel/oneapi/mkl/2026.0/lib/libmkl_core.so.3\n")
    status, data = asked(tmp_path, capsys, "numpy_predict", mkl=package)
    assert (status, data["mkl"]) == (Exit.FINDINGS, "/opt/intel/oneapi/mkl/2026.0/lib")
    with pytest.raises(AgentError, match="no MKL was found in nothing"):
        asked(tmp_path, capsys, "numpy_predict", mkl="nothing")
    assert write(shown.prediction({"mkl": "x", "predictions": []})).startswith("No Python environment uses")


# numpy prove

SAID = "\n".join(
    f"\n{MARK}{json.dumps(row)}"
    for row in (
        {"at": "import numpy"},
        {"stage": "import numpy", "own": True, "got": "/x", "numpy": "2.3.5"},
        {"at": "dot"},
        {"stage": "dot", "right": True, "got": "0"},
    )
)
END = f'\n{MARK}{{"at": ""}}\n'
ZDOTU = f'\n{MARK}{{"at": "zdotu"}}\n'
FATAL = (
    "INTEL MKL ERROR: x: undefined symbol: y.\nIntel MKL FATAL ERROR: Cannot load libmkl_avx512.so or libmkl_def.so.\n"
)
LOOKUP = "/x/python3: symbol lookup error: /x/libmkl_intel_thread.so.2: undefined symbol: omp_get_num_procs\n"


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "proof"),
    [
        (0, SAID + END, "", Proof(Outcome.PASSED, "", 0, "", "2.3.5")),
        (2, SAID + FATAL, "", Proof(Outcome.FAILED, "dot", 2, FATAL.splitlines()[1], "2.3.5")),
        (127, SAID, LOOKUP, Proof(Outcome.FAILED, "dot", 127, LOOKUP.strip(), "2.3.5")),
        (-11, SAID + ZDOTU, "Fatal Python error: Segmentation fault\n\nCurrent thread", None),
        (1, "", "Traceback\nModuleNotFoundError: No module named 'x'", None),
        (126, "", "env: '/srv/app/bin/python3': Permission denied", None),
    ],
)
def test_the_output_of_a_proof_is_understood(status: int, stdout: str, stderr: str, proof: Proof | None) -> None:
    seen = judge(status, stdout, stderr)
    if proof:
        assert seen == proof
    elif stdout:
        segfault = "Fatal Python error: Segmentation fault"
        assert seen == Proof(Outcome.FAILED, "zdotu", 139, segfault, "2.3.5")
    else:
        assert seen.outcome is Outcome.NOT_RUN
        assert seen.said == stderr.splitlines()[-1]


def test_a_wrong_number_is_named_with_its_stage() -> None:
    wrong = f'\n{MARK}{{"stage": "zdotu", "right": false, "got": "3.7e+150j"}}\n'
    seen = judge(0, SAID + wrong + END, "")
    assert (seen.outcome, seen.stage, seen.said) == (Outcome.WRONG, "zdotu", "got 3.7e+150j")


def test_a_proof_with_another_numpy_proves_nothing() -> None:
    other = f'\n{MARK}{{"stage": "import numpy", "own": false, "got": "/usr/lib/numpy", "numpy": "1"}}\n'
    assert judge(0, other + END, "").outcome is Outcome.NOT_RUN


@pytest.mark.parametrize(
    ("outcome", "kind", "expected", "answer"),
    [
        (Outcome.PASSED, "ok", 0, True),
        (Outcome.PASSED, "rebuild", 1, False),
        (Outcome.FAILED, "rebuild", 1, True),
        (Outcome.FAILED, "ok", 0, False),
        (Outcome.WRONG, "wrong-results", 0, True),
        (Outcome.FAILED, "wrong-results", 0, True),
        (Outcome.PASSED, "wrong-results", 0, False),
        (Outcome.WRONG, "ok", 0, False),
        (Outcome.PASSED, "unknown", 0, None),
        (Outcome.NOT_RUN, "ok", 0, None),
        (Outcome.FAILED, "fail-mixed", None, True),
        (Outcome.PASSED, "fail-mixed", None, None),
    ],
)
def test_a_proof_is_held_against_the_verdict(
    outcome: Outcome, kind: str, expected: int | None, answer: bool | None
) -> None:
    assert agrees(Proof(outcome, "", 0, ""), kind, expected) is answer


def test_the_program_of_the_proof_is_sound_python_and_writes_nothing() -> None:
    compile(PROGRAM, "proof", "exec")
    assert "open(" not in PROGRAM


def runnable(place: Path, numpy: str) -> Path:
    """Make an environment whose own Python is the system's, with a `numpy` of the test's making."""
    place.chmod(0o755)
    site = venv(place, "/env", numpy="9.9")
    put(site, "numpy/__init__.py", numpy)
    (place / "env/bin").mkdir()
    (place / "env/bin/python3").symlink_to("/usr/bin/python3")
    return place / "env"


@pytest.mark.real
def test_a_proof_runs_the_environments_python_and_never_as_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        directory.chmod(0o755)
        if directory.name.startswith("pytest-of-"):
            break
    said = (
        "import os, sys; print('Intel MKL FATAL ERROR: as', os.geteuid(), sys.flags.isolated, flush=True); os._exit(2)"
    )
    environment = runnable(tmp_path, said)
    status, data = asked(Path("/"), capsys, "numpy_prove", environment=str(environment))
    assert status == Exit.FINDINGS
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    assert data["proof"]["said"] == f"Intel MKL FATAL ERROR: as {user} 1"
    assert (data["proof"]["outcome"], data["proof"]["stage"], data["proof"]["status"]) == ("failed", "import numpy", 2)
    assert (data["verdict"], data["agrees"]) == ("not-mkl", False)
    text = write(shown.proof(data))
    assert "failed at import numpy, exit status 2" in text
    assert "the proof contradicts it" in text


def test_what_belongs_to_somebody_else_is_run_by_nobody_but_root_and_root_runs_nothing_as_itself(
    tmp_path: Path,
) -> None:
    venv(tmp_path, "/srv/app")
    (environment,) = found(tmp_path).environments
    environment = replace(environment, prefix=str(tmp_path / "srv/app"))
    other = replace(environment, uid=os.geteuid() + 1000)
    if os.geteuid() == 0:
        assert commands.user_for(other) == "1000"
        assert commands.user_for(environment) == "nobody"
        os.chown(tmp_path / "srv/app", 1001, 1001)
    else:
        assert commands.user_for(environment) == str(os.geteuid())
    with pytest.raises(AgentError, match="belongs to (another user|somebody else)"):
        commands.user_for(other)


def test_each_kind_has_its_own_python(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    (environment,) = found(tmp_path).environments
    assert interpreter(environment) == "/srv/app/bin/python3"
    assert interpreter(replace(environment, kind="debian", prefix="/usr")) == "/usr/bin/python3.11"
    assert interpreter(replace(environment, kind="user", python="")) == "/usr/bin/python3"
