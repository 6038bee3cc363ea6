"""The history on a disk that the kernel made read-only, as ext4 does after an error."""

import subprocess
import sys
from pathlib import Path

ON_A_DISK_OF_ITS_OWN = """
import os, subprocess, sys
from datetime import UTC, datetime
from pathlib import Path
from agent.store.database import Database

def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", sys.argv[1]], check=True)

path, now = Path(sys.argv[1], "history.db"), datetime(2026, 11, 23, tzinfo=UTC)
if os.fork() == 0:
    file = Database.open(path, now)
    file.commit(lambda: file.set("mode", "kept in the log of changes alone"))
    os._exit(0)
os.wait()
remount("ro")
copy = Database.open(path, now)
print(copy.get("mode"), copy.unwritten, sep="\\n")
copy.commit(lambda: copy.set("mode", "made in memory"))
remount("rw")
copy.write_back()
copy.close()
file = Database.open(path, now)
print(file.get("mode"), file.unwritten or "written", sep="\\n")
"""


def test_what_a_read_only_disk_holds_is_read_and_what_came_after_is_written_later(tmp_path: Path) -> None:
    mounted = 'mount -t tmpfs none "$1" && exec "$2" -B -c "$3" "$1"'
    words = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, ON_A_DISK_OF_ITS_OWN]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    kept, why, later, written = done.stdout.splitlines()
    assert kept == "kept in the log of changes alone" and "Read-only file system" in why
    assert (later, written) == ("made in memory", "written")
