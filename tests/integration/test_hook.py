"""The hook under a real dpkg: it wakes the daemon up, and whatever is wrong with it, dpkg does not notice."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

HOOKS = Path(__file__).parents[2] / "hooks"
HOOK = "/usr/lib/aftercare/post-invoke"
RUN = "/run/aftercare"
LONG_AGO = 1_000_000_000


@dataclass(frozen=True)
class Scratch:
    """A dpkg database of its own, and dpkg configured with our line for a hook that lies in `directory`."""

    directory: Path

    @property
    def hook(self) -> Path:
        return self.directory / "post-invoke"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def touchstone(self) -> Path:
        return self.run / "hook"

    def dpkg(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a dpkg that has nothing to configure, but runs its hooks."""
        return subprocess.run(
            ["dpkg", f"--admindir={self.directory}/admin", "--log=/dev/null", *options, "--configure", "-a"],
            env={"HOME": str(self.directory), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=20,
        )

    def was_touched(self) -> bool:
        return self.touchstone.stat().st_mtime > LONG_AGO


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    made = Scratch(tmp_path)
    for name in ("info", "updates", "triggers"):
        (tmp_path / "admin" / name).mkdir(parents=True)
    (tmp_path / "admin" / "status").touch()
    made.run.mkdir()
    made.touchstone.touch()
    os.utime(made.touchstone, (LONG_AGO, LONG_AGO))
    made.hook.write_text((HOOKS / "post-invoke").read_text().replace(RUN, str(made.run)))
    made.hook.chmod(0o755)
    (tmp_path / ".dpkg.cfg").write_text((HOOKS / "dpkg-cfg").read_text().replace(HOOK, str(made.hook)))
    return made


def test_the_line_for_dpkg_is_word_for_word_the_one_that_was_tried() -> None:
    lines = [line for line in (HOOKS / "dpkg-cfg").read_text().splitlines() if not line.startswith("#")]
    expected = 'post-invoke=if [ -z "$DPKG_ROOT" ] && [ -x H ]; then H </dev/null >/dev/null 2>&1 || :; fi'
    assert lines == [expected.replace("H ", f"{HOOK} ")]


def test_the_hook_ends_word_for_word_as_was_tried_and_may_be_run() -> None:
    assert (HOOKS / "post-invoke").read_text().splitlines()[-1] == (
        "[ -e /run/aftercare/hook ] || exit 0; (: >/run/aftercare/hook) || :"
    )
    assert os.access(HOOKS / "post-invoke", os.X_OK)


def test_a_run_of_dpkg_touches_the_file_and_prints_nothing(scratch: Scratch) -> None:
    done = scratch.dpkg()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert scratch.was_touched()


def test_a_run_for_another_root_does_not(scratch: Scratch) -> None:
    root = scratch.directory / "other"
    root.mkdir()
    done = scratch.dpkg(f"--root={root}", f"--admindir={scratch.directory}/admin")
    assert (done.returncode, done.stderr) == (0, "")
    assert not scratch.was_touched()


def remove_run(scratch: Scratch) -> None:
    scratch.touchstone.unlink()
    scratch.run.rmdir()


def remove_touchstone(scratch: Scratch) -> None:
    scratch.touchstone.unlink()


def replace_by_directory(scratch: Scratch) -> None:
    scratch.touchstone.unlink()
    scratch.touchstone.mkdir()


def take_right_to_run(scratch: Scratch) -> None:
    scratch.hook.chmod(0o644)


def remove_package(scratch: Scratch) -> None:
    scratch.hook.unlink()


def break_hook(scratch: Scratch) -> None:
    scratch.hook.write_text("#!/bin/sh\necho loud; echo louder >&2; exit 3\n")


def lose_interpreter(scratch: Scratch) -> None:
    scratch.hook.write_text("#!/nowhere/sh\n")


TROUBLES = [
    remove_run,
    remove_touchstone,
    replace_by_directory,
    take_right_to_run,
    remove_package,
    break_hook,
    lose_interpreter,
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_is_wrong_dpkg_neither_fails_nor_says_a_word(
    scratch: Scratch, trouble: Callable[[Scratch], None]
) -> None:
    trouble(scratch)
    done = scratch.dpkg()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_hook_makes_no_file_that_was_not_there(scratch: Scratch) -> None:
    scratch.touchstone.unlink()
    scratch.dpkg()
    assert not scratch.touchstone.exists()


def test_a_read_only_run_directory_is_borne(scratch: Scratch) -> None:
    mount = f"mount --bind {scratch.run} {scratch.run} && mount -o remount,ro,bind {scratch.run}"
    dpkg = f"dpkg --admindir={scratch.directory}/admin --log=/dev/null --configure -a"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && ! touch {scratch.touchstone} 2>/dev/null && {dpkg}"],
        env={"HOME": str(scratch.directory), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not scratch.was_touched()


def test_the_hook_stands_by_itself_where_a_redirection_would_end_dash(scratch: Scratch) -> None:
    replace_by_directory(scratch)
    done = subprocess.run(["dash", str(scratch.hook)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
