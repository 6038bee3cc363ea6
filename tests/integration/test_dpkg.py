"""What is read of dpkg's database after real runs of dpkg and apt, in a root of their own."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.checks.survey import survey
from agent.host.transactions import diff, is_interrupted, is_locked, read_snapshot, read_story, unfinished
from agent.model.errors import AgentError
from agent.model.events import Due, Touched
from agent.model.facts import Change, Host, Snapshot
from agent.settle import Settling, step
from agent.sources.files import WATCHES, FileWatch
from tests.integration.waiting import until

ARCH = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
FOREIGN = "i386" if ARCH != "i386" else "amd64"
OPTIONS = ("--force-script-chrootless", "--force-not-root")


@dataclass(frozen=True)
class Root:
    """A root with an empty dpkg database (but for one package), and the means to build packages for it."""

    path: Path

    @property
    def host(self) -> Host:
        return Host(root=str(self.path))

    def deb(self, name: str, version: str = "1", arch: str = ARCH, fields: str = "", **members: str) -> str:
        """Build a package with one library; `members`: maintainer scripts and other control files."""
        tree = self.path.parent / f"{name}_{version}_{arch}"
        (tree / "DEBIAN").mkdir(parents=True)
        library = tree / f"usr/lib/{name}-{arch}/lib{name}.so"
        library.parent.mkdir(parents=True)
        library.write_text(f"\x7fELF {name} {version}")
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n{fields}"
        (tree / "DEBIAN/control").write_text(f"{control}Maintainer: A <a@example.org>\nDescription: a test\n")
        for member, text in members.items():
            (tree / "DEBIAN" / member).write_text(text)
            (tree / "DEBIAN" / member).chmod(0o755)
        for conffile in members.get("conffiles", "").split():
            (tree / conffile[1:]).parent.mkdir(parents=True, exist_ok=True)
            (tree / conffile[1:]).write_text("made for a test\n")
        deb = f"{tree}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, deb], check=True, stdout=-3)
        return deb

    def command(self, *arguments: str) -> list[str]:
        return ["dpkg", f"--root={self.path}", f"--log={self.path}/var/log/dpkg.log", *OPTIONS, *arguments]

    def dpkg(self, *arguments: str, status: int = 0) -> Snapshot:
        """Run dpkg to its end and return what its database says then."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stderr
        return read_snapshot(self.host)

    def apt(self, *arguments: str) -> None:
        """Run apt-get on this root alone: none of the machine's own settings, hooks and lists."""
        conf = self.path.parent / "apt.conf"
        options = "".join(f'"{word}";' for word in self.command()[1:])
        conf.write_text(
            f'Dir "{self.path}"; Dir::State::status "{self.path}/var/lib/dpkg/status";'
            f'Dir::Bin::dpkg "/usr/bin/dpkg"; DPkg::Options {{ {options} }}; APT::Sandbox::User "root";'
        )
        environment = {"APT_CONFIG": str(conf), "PATH": os.environ["PATH"], "LC_ALL": "C"}
        command = ["apt-get", "-qq", "-y", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A dpkg that waits in a maintainer script until the file `go` is there; it ends with the block."""
        process = subprocess.Popen(self.command(*arguments), stdout=-3, stderr=-3, start_new_session=True)
        try:
            until((self.path / "waiting").exists, "a maintainer script")
            yield process
        finally:
            (self.path / "go").touch()
            process.wait(20)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = Root(tmp_path / "root")
    for directory in ("dpkg/info", "dpkg/updates", "dpkg/triggers", "apt/lists/partial"):
        (made.path / "var/lib" / directory).mkdir(parents=True)
    for directory in ("var/log/apt", "var/cache/apt/archives/partial", "etc/apt/preferences.d"):
        (made.path / directory).mkdir(parents=True)
    (made.path / "var/lib/dpkg/status").touch()
    made.dpkg("-i", made.deb("base"))
    return made


WAIT = 'touch "$DPKG_ROOT/waiting"; until [ -e "$DPKG_ROOT/go" ]; do sleep 0.05; done'


def waiting(when: str) -> str:
    """Return a maintainer script that waits when it is called for `when`."""
    return f'#!/bin/sh\n[ "$1" = {when} ] || exit 0\n{WAIT}\n'


SLOW = "#!/bin/sh\nsleep 0.4\n"


def changed(name: str, old: str | None, new: str | None, arch: str = ARCH) -> tuple[Change, ...]:
    return (Change(name, arch, old, new),)


# What changed


def test_install_upgrade_reinstall_remove_and_purge_are_told_apart(root: Root) -> None:
    first, second = root.deb("demo", "1", conffiles="/etc/demo.conf\n"), root.deb("demo", "2")
    before = read_snapshot(root.host)
    installed = root.dpkg("-i", first)
    assert diff(before, installed) == changed("demo", None, "1")
    again = root.dpkg("-i", first)
    assert diff(installed, again) == changed("demo", "1", "1")
    assert diff(again, root.dpkg("--configure", "-a")) == ()
    upgraded = root.dpkg("-i", second)
    assert diff(again, upgraded) == changed("demo", "1", "2")
    downgraded = root.dpkg("-i", first)
    assert diff(upgraded, downgraded) == changed("demo", "2", "1")
    removed = root.dpkg("-r", "demo")
    assert diff(downgraded, removed) == changed("demo", "1", None)
    assert "config-files" in (root.path / "var/lib/dpkg/status").read_text()
    assert diff(removed, root.dpkg("-P", "demo")) == ()


def test_the_architectures_of_one_package_are_told_apart(root: Root) -> None:
    root.dpkg("--add-architecture", FOREIGN)
    same = "Multi-Arch: same\n"
    native, foreign = root.deb("demo", fields=same), root.deb("demo", arch=FOREIGN, fields=same)
    before = root.dpkg("-i", native, foreign)
    assert {f"demo:{ARCH}", f"demo:{FOREIGN}"} < before.keys()
    assert all(state.stamp for state in before.values())
    assert diff(before, root.dpkg("-i", foreign)) == changed("demo", "1", "1", FOREIGN)


def test_a_hold_is_no_change(root: Root) -> None:
    before = root.dpkg("-i", root.deb("demo"))
    subprocess.run(root.command("--set-selections"), input=b"demo hold\n", check=True)
    assert b"hold ok installed" in (root.path / "var/lib/dpkg/status").read_bytes()
    assert diff(before, read_snapshot(root.host)) == ()


# What is not finished


def test_a_failing_postinst_leaves_the_package_unfinished_until_it_is_configured(root: Root) -> None:
    failed = root.dpkg("-i", root.deb("demo", postinst="#!/bin/sh\nexit 1\n"), status=1)
    assert [(state.name, state.state) for state in unfinished(failed)] == [("demo", "half-configured")]
    assert not is_interrupted(root.host)
    (root.path / "var/lib/dpkg/info/demo.postinst").write_text("#!/bin/sh\n")
    mended = root.dpkg("--configure", "-a")
    assert unfinished(mended) == ()
    assert diff(failed, mended) == changed("demo", "1", "1")


def test_pending_triggers_are_unfinished(root: Root) -> None:
    root.dpkg("-i", root.deb("listener", triggers="interest-noawait /usr/lib/demo\n"))
    pending = root.dpkg("--no-triggers", "-i", root.deb("demo", triggers="activate-noawait /usr/lib/demo\n"))
    assert [(state.name, state.state) for state in unfinished(pending)] == [("listener", "triggers-pending")]
    assert unfinished(root.dpkg("--triggers-only", "-a")) == ()


def test_a_killed_dpkg_is_an_interrupted_one_though_its_status_says_that_all_is_well(root: Root) -> None:
    before = root.dpkg("-i", root.deb("demo"))
    with root.running("-i", root.deb("demo", "2", preinst=waiting("upgrade"))) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert "half-installed" not in (root.path / "var/lib/dpkg/status").read_text()
    assert is_interrupted(root.host)
    assert not is_locked(root.host)
    killed = read_snapshot(root.host)
    assert [(state.name, state.state) for state in unfinished(killed)] == [("demo", "half-installed")]
    assert diff(before, killed) == changed("demo", "1", "1")
    mended = root.dpkg("-i", root.deb("demo", "3"))
    assert not is_interrupted(root.host)
    assert (unfinished(mended), diff(before, mended)) == ((), changed("demo", "1", "3"))


def test_a_dpkg_killed_after_it_had_replaced_the_files_is_seen_to_have_changed_them(root: Root) -> None:
    before = root.dpkg("-i", root.deb("demo"))
    with root.running("-i", root.deb("demo", "2", postinst=waiting("configure"))) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert "Version: 2" not in (root.path / "var/lib/dpkg/status").read_text()
    assert diff(before, read_snapshot(root.host)) == changed("demo", "1", "2")


# The lock


def test_the_locks_of_a_running_dpkg_are_seen_and_their_end_too(root: Root) -> None:
    assert not is_locked(root.host)
    with root.running("-i", root.deb("demo", preinst=waiting("install"))):
        assert is_locked(root.host)
    assert not is_locked(root.host)


HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o640)
fcntl.lockf(descriptor, getattr(fcntl, sys.argv[2]), int(sys.argv[3]))
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, kind: str = "LOCK_EX", length: int = 0) -> Iterator[None]:
    """Another process that locks `path` for the length of the block."""
    command = [sys.executable, "-c", HOLD, str(path), kind, str(length)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        yield
        process.stdin.close()


@pytest.mark.parametrize("name", ["lock-frontend", "lock"])
@pytest.mark.parametrize("length", [0, 1])
def test_each_lock_counts_however_much_of_the_file_it_covers(root: Root, name: str, length: int) -> None:
    with held(root.path / "var/lib/dpkg" / name, length=length):
        assert is_locked(root.host)
    assert not is_locked(root.host)


def test_a_lock_for_reading_is_no_transaction(root: Root) -> None:
    with held(root.path / "var/lib/dpkg/lock", "LOCK_SH"):
        assert not is_locked(root.host)


def test_a_missing_lock_file_is_not_locked_and_is_not_made(root: Root) -> None:
    for name in ("lock-frontend", "lock"):
        (root.path / "var/lib/dpkg" / name).unlink(missing_ok=True)
    assert not is_locked(root.host)
    assert not (root.path / "var/lib/dpkg/lock-frontend").exists()


# Over, and told


async def settles(root: Root, work: Callable[[], None], quiet: float) -> list[datetime]:
    """Return when it settled while `work` was done in a thread; watches, lock and clock as in the daemon."""
    loop, settled, complaints = asyncio.get_running_loop(), list[datetime](), list[AgentError]()
    state, timer = Settling(timedelta(seconds=quiet)), loop.call_later(0, int)

    def happened(event: Touched | Due) -> None:
        nonlocal state, timer
        now = datetime.now(UTC)
        timer.cancel()
        state, over, wake = step(state, event, now, is_locked(root.host))
        if over:
            settled.append(now)
        if wake:
            timer = loop.call_later((wake - now).total_seconds(), happened, Due("settle", wake))

    watches = tuple(replace(watch, directory=f"{root.path}{watch.directory}") for watch in WATCHES)
    files = FileWatch(happened, complaints.append, watches)
    files.start(loop)
    await asyncio.to_thread(work)
    async with asyncio.timeout(20):
        while not settled:
            await asyncio.sleep(quiet)
    await asyncio.sleep(4 * quiet)
    files.close()
    assert not complaints
    return settled


def test_an_apt_run_of_several_dpkg_runs_settles_once_at_its_very_end(root: Root) -> None:
    library = root.deb("demo-lib", postinst=SLOW)
    program = root.deb("demo", fields="Pre-Depends: demo-lib\n", postinst=SLOW)
    [settled] = asyncio.run(settles(root, lambda: root.apt("install", program, library), 0.1))
    assert (root.path / "var/log/dpkg.log").read_text().count("startup") >= 4
    assert settled.timestamp() >= (root.path / "var/lib/dpkg/status").stat().st_mtime + 0.1


def test_a_killed_dpkg_settles_by_itself(root: Root) -> None:
    def work() -> None:
        with root.running("-i", root.deb("demo", preinst=waiting("install"))) as process:
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGKILL)

    assert len(asyncio.run(settles(root, work, 0.1))) == 1


def test_a_lock_that_was_removed_under_its_holder_wakes_when_it_is_closed(root: Root) -> None:
    def work() -> None:
        with root.running("-i", root.deb("demo", preinst=waiting("install"))):
            (root.path / "var/lib/dpkg/lock-frontend").unlink()
            time.sleep(0.3)

    assert len(asyncio.run(settles(root, work, 0.1))) == 1


def test_the_survey_of_an_apt_run_has_the_change_the_files_and_the_story(root: Root) -> None:
    root.dpkg("-i", root.deb("demo"), root.deb("other"))
    time.sleep(1)  # the logs have whole seconds: this run of dpkg belongs to an earlier one
    before, since = read_snapshot(root.host), datetime.now(UTC)
    root.apt("install", root.deb("demo", "2"))
    found = survey(root.host, before, datetime.now(UTC), since)
    assert (found.changed, found.unfinished, found.full) == (("demo",), (), False)
    assert found.snapshot == read_snapshot(root.host)
    assert {(item.package, item.version) for item in found.index} == {("demo", "2")}
    library = (root.path / f"usr/lib/demo-{ARCH}/libdemo.so").stat()
    assert (library.st_dev, library.st_ino) in {(item.id.device, item.id.inode) for item in found.index}
    assert found.begun and since - timedelta(seconds=1) < found.begun <= datetime.now(UTC)
    assert found.command == f"apt-get -qq -y install {root.path.parent}/demo_2_{ARCH}.deb"


def test_the_first_survey_indexes_every_package_and_tells_no_story(root: Root) -> None:
    root.dpkg("-i", root.deb("demo"), root.deb("other"))
    found = survey(root.host, None, datetime.now(UTC), None)
    assert found.full
    assert {item.package for item in found.index} == {"base", "demo", "other"}
    assert (found.begun, found.command, found.requester) == (None, "", "")


def test_the_survey_reads_all_architectures_of_a_package_of_which_one_changed(root: Root) -> None:
    root.dpkg("--add-architecture", FOREIGN)
    same = "Multi-Arch: same\n"
    foreign = root.deb("demo", arch=FOREIGN, fields=same)
    before = root.dpkg("-i", root.deb("demo", fields=same), foreign)
    root.dpkg("-i", foreign)
    found = survey(root.host, before, datetime.now(UTC), None)
    assert {Path(item.path).parent.name for item in found.index} == {f"demo-{ARCH}", f"demo-{FOREIGN}"}


def test_a_survey_after_which_nothing_changed_is_empty(root: Root) -> None:
    found = survey(root.host, read_snapshot(root.host), datetime.now(UTC), datetime.now(UTC))
    assert (found.changed, found.index, found.unfinished, found.command) == ((), (), (), "")


def test_the_survey_of_a_killed_dpkg_names_dpkg_itself_beside_the_package(root: Root) -> None:
    before, since = read_snapshot(root.host), datetime.now(UTC)
    with root.running("-i", root.deb("demo", postinst=waiting("configure"))) as process:
        os.kill(process.pid, signal.SIGKILL)
    found = survey(root.host, before, datetime.now(UTC), since)
    assert (found.changed, found.unfinished, found.command) == (("demo",), ("demo", "dpkg"), "dpkg")


def test_the_story_of_plain_dpkg_comes_from_its_own_log(root: Root) -> None:
    before, since = read_snapshot(root.host), datetime.now(UTC)
    after = root.dpkg("-i", root.deb("demo"))
    told = read_story(root.host, since, datetime.now(UTC), diff(before, after))
    assert (told.command, told.requester) == ("dpkg", "")
    assert told.begun and told.begun >= since.replace(microsecond=0)
