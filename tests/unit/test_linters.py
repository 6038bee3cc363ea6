"""The linters, as tests: types, names and shell are right everywhere or nowhere."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("setup/*", "hooks/post-invoke", "debian/aftercare.postrm", "debian/tests/upgrade", ".ci/run")

pytestmark = pytest.mark.real


def clean(*argv: str | Path) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def scripts() -> Sequence[Path]:
    return sorted(path for pattern in SCRIPTS for path in ROOT.glob(pattern))


def test_every_signature_is_typed_and_the_types_agree(tmp_path: Path) -> None:
    clean("/usr/bin/python3", "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", "agent")


@pytest.mark.parametrize("tree", ["agent", "tests"])
def test_no_name_is_unknown_or_unused(tree: str) -> None:
    clean("/usr/bin/python3", "-m", "pyflakes", tree)


def test_the_shell_is_sound() -> None:
    assert len(scripts()) >= 8
    clean("shellcheck", *scripts())
