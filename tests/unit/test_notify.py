"""Telling people: which scripts are run, how, and what the one that comes with aftercare writes to a terminal."""

import asyncio
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.notify import MOST_WAITING, Notifier, Session, hand_out, scripts, stale_sessions
from agent.model.errors import AgentError, Kind
from agent.spawn import Done

WALL = Path(__file__).parents[2] / "hooks/notify.d/wall"
NOBODY = 65534
EVENT = stale_sessions([Session("session-3.scope", "alice", 1000, ("pts/0",), ("libssl3",))])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Act:
    """Stands for the scripts: answers by name, remembers how each was run, and may take its time."""

    def __init__(self, **answers: Done | AgentError) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[str, ...], Mapping[str, Any]]] = []

    def __call__(self, user: str, argv: Sequence[str], **how: Any) -> Done:
        self.calls.append((user, tuple(argv), how))
        answer = self.answers.get(Path(argv[0]).name, Done((), 0, "", ""))
        if isinstance(answer, AgentError):
            raise answer
        return answer


class Complaints(list[tuple[str, str]]):
    """What the journal would be told."""

    def __call__(self, script: str, words: str) -> None:
        self.append((script, words))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "notify.d"
    path.mkdir(mode=0o755)
    return path


def script(folder: Path, name: str, mode: int = 0o755) -> str:
    path = folder / name
    path.touch()
    path.chmod(mode)
    return str(path)


def handed_out(folder: Path, act: Act) -> Complaints:
    complaints = Complaints()
    asyncio.run(hand_out(EVENT, complaints, str(folder), act))
    return complaints


# Which scripts


@needs_root
def test_scripts_are_run_in_the_order_of_their_names_as_run_parts_would(folder: Path) -> None:
    good = [script(folder, name) for name in ("20-b", "10_a", "B", "a")]
    for name in ("a.dpkg-old", "a~", ".hidden", "a.sh"):
        script(folder, name)
    script(folder, "not-executable", 0o644)
    (folder / "a-folder").mkdir()
    (folder / "nowhere").symlink_to("/nonexistent")
    assert scripts(str(folder)) == (sorted(good), [])


@needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o757, 0), (0o755, 1000)])
def test_a_script_that_somebody_else_may_write_is_not_run(folder: Path, mode: int, owner: int) -> None:
    path = script(folder, "a", mode)
    os.chown(path, owner, 0)
    assert scripts(str(folder)) == ([], [(path, f"not run: {path} is not root's, or others may write it")])


@needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o777, 0), (0o755, 1000)])
def test_nothing_is_run_from_a_folder_that_somebody_else_may_write(folder: Path, mode: int, owner: int) -> None:
    script(folder, "a")
    folder.chmod(mode)
    os.chown(folder, owner, 0)
    chosen, refused = scripts(str(folder))
    assert chosen == [] and str(folder) in refused[0][1]
    act = Act()
    assert handed_out(folder, act) == refused and act.calls == []


@needs_root
def test_a_link_counts_as_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    for name, mode in (("safe", 0o755), ("open", 0o777)):
        (tmp_path / name).mkdir()
        (folder / name).symlink_to(script(tmp_path / name, "x"))
        (tmp_path / name).chmod(mode)
    chosen, refused = scripts(str(folder))
    assert chosen == [str(tmp_path / "safe/x")]
    assert [where for where, _ in refused] == [str(tmp_path / "open/x")]


def test_without_a_folder_there_are_no_scripts(tmp_path: Path) -> None:
    assert scripts(str(tmp_path / "none")) == ([], [])


# How


@needs_root
def test_a_script_gets_the_event_as_a_word_and_as_json_and_may_do_little(folder: Path) -> None:
    path, act = script(folder, "a"), Act()
    assert handed_out(folder, act) == []
    [(user, argv, how)] = act.calls
    assert (user, argv) == ("nobody", (path, "stale-sessions"))
    assert json.loads(how["stdin"]) == {
        "event": "stale-sessions",
        "sessions": [
            {"unit": "session-3.scope", "user": "alice", "uid": 1000, "ttys": ["pts/0"], "packages": ["libssl3"]}
        ],
    }
    wanted = {
        "SupplementaryGroups": "tty",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateNetwork": "yes",
    }
    assert how["timeout"] == 30.0 and wanted.items() <= how["properties"].items()


@needs_root
def test_what_one_script_does_wrong_is_told_and_the_next_is_run(folder: Path) -> None:
    paths = [script(folder, name) for name in ("a", "b", "c", "d")]
    act = Act(
        a=Done((), 1, "", "Traceback\nno \x1b[31mterminal\n"),
        b=AgentError(Kind.TIMED_OUT, "b did not end within 35 s"),
        c=Done((), 3, "", ""),
    )
    assert handed_out(folder, act) == [
        (paths[0], "no \\x1b[31mterminal"),
        (paths[1], "b did not end within 35 s"),
        (paths[2], "it ended with status 3"),
    ]
    assert [argv[0] for _, argv, _ in act.calls] == paths


@needs_root
def test_events_wait_in_turn_and_too_many_are_dropped_and_told(folder: Path) -> None:
    script(folder, "a")
    act, complaints = Act(), Complaints()

    async def work() -> None:
        notifier = Notifier(complaints, str(folder), act)
        for number in range(MOST_WAITING + 2):
            notifier.tell({"event": f"e{number}"})
        task = asyncio.create_task(notifier.run())
        while len(act.calls) < MOST_WAITING:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(work(), 10))
    assert [argv[1] for _, argv, _ in act.calls] == [f"e{number}" for number in range(MOST_WAITING)]
    assert [words.split()[0] for _, words in complaints] == [f"e{MOST_WAITING}", f"e{MOST_WAITING + 1}"]


def test_names_from_outside_are_made_printable_and_few() -> None:
    hostile = Session("s\x1b", "ali\nce", 1, ("pts/0\x07",) * 1000, ("x\u202e",) * 1000)
    event = stale_sessions([hostile] * 1000)
    assert len(event["sessions"]) == 100
    session = event["sessions"][0]
    assert (session["unit"], session["user"]) == ("s\\x1b", "ali\\nce".replace("\\n", "\\x0a"))
    assert session["ttys"] == ["pts/0\\x07"] * 50 and session["packages"] == ["x\\u202e"] * 50


# The script that comes with aftercare


END = b"-- that was all --"


@dataclass(frozen=True)
class Terminal:
    """A terminal of uid 1000, as sshd would set it up: its two ends, and its name."""

    leader: int
    follower: int
    name: str

    def said(self) -> str:
        """Return what was written to it; the kernel hands that on in its own time, and then a word of ours."""
        os.write(self.follower, END)
        said = b""
        while not said.endswith(END):
            said += os.read(self.leader, 4096)
        return said.removesuffix(END).decode()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    leader, follower = pty.openpty()
    path = os.ttyname(follower)
    if os.geteuid() == 0:
        os.chown(path, 1000, 5)
        os.chmod(path, 0o620)
    yield Terminal(leader, follower, path.removeprefix("/dev/"))
    os.close(leader)
    os.close(follower)


def wall(event: Mapping[str, Any], groups: str = "tty") -> subprocess.CompletedProcess[str]:
    who = ["--reuid=65534", "--regid=65534", f"--groups={groups}", "--bounding-set=-all", "--no-new-privs"]
    argv = ["setpriv", *who, "/usr/bin/python3", "-IS", "-c", WALL.read_text(), event["event"]]
    return subprocess.run(argv, input=json.dumps(event), capture_output=True, text=True, timeout=20, check=False)


def about(tty: str, *packages: str, uid: int = 1000) -> dict[str, Any]:
    return stale_sessions([Session("session-3.scope", "alice", uid, (tty,), packages)])


@needs_root
@pytest.mark.real
@pytest.mark.parametrize(
    ("packages", "what"),
    [
        (("libc6",), "files of libc6 were"),
        (("libc6", "libssl3"), "files of libc6 and libssl3 were"),
        (("a", "b", "c", "d", "e"), "files of a, b, c and 2 more were"),
        ((), "files were"),
    ],
)
def test_nobody_with_the_group_tty_writes_one_sentence(
    terminal: Terminal, packages: tuple[str, ...], what: str
) -> None:
    done = wall(about(terminal.name, *packages))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    said = terminal.said()
    assert said.strip("\r\n\a").startswith(f"aftercare: {what} replaced") and said.endswith("in again.\r\r\n")


@needs_root
@pytest.mark.real
def test_who_does_not_want_messages_gets_none(terminal: Terminal) -> None:
    os.chmod(f"/dev/{terminal.name}", 0o600)
    assert wall(about(terminal.name, "libc6")).returncode == 0
    assert terminal.said() == ""


@needs_root
@pytest.mark.real
def test_without_the_group_it_could_not_write(terminal: Terminal) -> None:
    assert wall(about(terminal.name, "libc6"), groups="nogroup").returncode == 0
    assert terminal.said() == ""


@needs_root
@pytest.mark.real
def test_the_terminal_of_somebody_else_is_left_alone(terminal: Terminal) -> None:
    assert wall(about(terminal.name, "libc6", uid=1001)).returncode == 0
    assert terminal.said() == ""


@needs_root
@pytest.mark.real
@pytest.mark.parametrize("tty", ["../etc/passwd", "pts/../null", "null", "", "tty/../x", "pts/9999999"])
def test_what_is_no_terminal_is_never_opened(tty: str) -> None:
    done = wall(about(tty, "libc6"))
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
@pytest.mark.real
def test_a_terminal_never_gets_what_would_steer_it(terminal: Terminal) -> None:
    event = about(terminal.name)
    event["sessions"][0]["packages"] = ["x\x1b[2J\x9b31m\ny", "libc6"]
    wall(event)
    said = terminal.said().strip("\r\n\a")
    assert said.startswith("aftercare: files of libc6 were") and said.isprintable()


@needs_root
@pytest.mark.real
def test_a_terminal_that_is_stopped_holds_nobody_up(terminal: Terminal) -> None:
    os.write(terminal.leader, b"\x13")
    assert wall(about(terminal.name, "libc6")).returncode == 0


@pytest.mark.real
def test_it_is_sound_and_executable() -> None:
    assert WALL.stat().st_mode & stat.S_IXUSR
    assert WALL.read_text().startswith("#!/usr/bin/python3 -IS\n")
    done = subprocess.run(
        [sys.executable, "-m", "pyflakes"], input=WALL.read_text(), capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


@pytest.mark.real
def test_an_event_that_it_does_not_know_is_none_of_its_business() -> None:
    argv = ["/usr/bin/python3", "-IS", "-c", WALL.read_text(), "x"]
    done = subprocess.run(argv, input='{"event": "other"}', capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
