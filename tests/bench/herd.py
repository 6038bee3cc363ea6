"""Makes the herd in a machine: a package with its program, sets of real libraries, a guest, and units of processes."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.machine import Machine

HERE = Path(__file__).parent
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
REPLACED = ("libcrypto.so.3", "libssl.so.3")
PROGRAM = "/usr/sbin/herd"
LOCAL = "/usr/local/sbin/herd"
SETS = 18
WITH_REPLACED = 6
LARGEST = 40
DECOYS = ("memfd", "jit", "named", "tmp", "home", "var")
NAMED = ("/opt/libc.so.6 (deleted)", f"{LIBRARIES}/libc.so.6 (deleted)")


def build(directory: Path) -> None:
    """Compile the readers, the herd's program, and what that is replaced with later: the same in other code."""
    for name, source, level in (("herd", "herd", "-O2"), ("renewed", "herd", "-O1"), ("reader", "reader", "-O2")):
        argv = ["gcc", level, "-static", "-Wall", "-Wextra", "-o", str(directory / name), str(HERE / f"{source}.c")]
        subprocess.run(argv, check=True)


def settle(machine: Machine, directory: Path) -> None:
    """Put into the machine what the herd needs: as a package, like the programs of a server mostly are."""
    install(machine, directory, "herd", 1)
    machine.copy_in(directory / "herd", LOCAL)
    for path in NAMED:
        machine.copy_in(directory / "herd", path)
    names = _choose(machine)
    for number in range(SETS):
        text = "".join(f"{LIBRARIES}/{name}\n" for name in names[number])
        machine.write(f"/usr/share/herd/{number}", text)
    _make_guest(machine, sorted({name for some in names for name in some}))


def install(machine: Machine, directory: Path, program: str, version: int) -> None:
    """Install the package of the herd's program in that version."""
    package = directory / f"package-{version}"
    for path in ("DEBIAN/control", PROGRAM.lstrip("/")):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(directory / program, package / PROGRAM.lstrip("/"))
    fields = f"Package: herd\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <root@localhost>\n"
    (package / "DEBIAN/control").write_text(f"{fields}Description: herd\n")
    deb = directory / f"herd-{version}.deb"
    argv = ["dpkg-deb", "--root-owner-group", "--build", str(package), str(deb)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    machine.copy_in(deb, f"/root/{deb.name}")
    machine.run(["dpkg", "-i", f"/root/{deb.name}"])


def _choose(machine: Machine) -> list[list[str]]:
    """Return the names of the libraries in each set: 10 to 40 of those that the machine has."""
    chance = random.Random(1)
    there = sorted(path.name for path in machine.path(str(LIBRARIES)).glob("*.so.*") if not path.is_symlink())
    others = [name for name in there if "deleted" not in name and name not in REPLACED]
    sets = [chance.sample(others, chance.randrange(10, LARGEST)) for _ in range(SETS)]
    return [[*(REPLACED if number < WITH_REPLACED else ()), *names] for number, names in enumerate(sets)]


def _make_guest(machine: Machine, names: list[str]) -> None:
    """Give the guest libraries of its own, by the same names: nothing that dpkg does here concerns it."""
    script = (
        f"mkdir -p /srv/guest{LIBRARIES} /srv/guest/usr/sbin /srv/guest/usr/share; cd {LIBRARIES};"
        f'cp -p "$@" /srv/guest{LIBRARIES}/; cp {PROGRAM} /srv/guest{PROGRAM};'
        "cp -r /usr/share/herd /srv/guest/usr/share/"
    )
    machine.run(["sh", "-euc", script, "guest", *names])


def grow(machine: Machine, number: int, size: int) -> None:
    """Add `size` processes, as a unit with that number."""
    plan, ready = f"/run/herd-{number}.plan", f"/run/herd-{number}.ready"
    machine.write(plan, "".join(_plan(size // 2)))
    words = ["systemd-run", "-q", f"--unit=herd-{number}", "-p", "TasksMax=infinity", "-p", "KillSignal=SIGKILL"]
    machine.run([*words, PROGRAM, plan, ready])
    machine.until(lambda: machine.run(["test", "-e", ready], check=False).status == 0, 120, f"{size} processes", 0.5)


def _plan(pairs: int) -> Iterator[str]:
    """Yield what the pairs do: a third in namespaces, 5 % by a program without a package, a few very large."""
    shares = {"private": pairs // 6, "guest": pairs - pairs // 6 * 5, "large": max(pairs // 500, 1)}
    shares |= dict.fromkeys(DECOYS, pairs // 250)
    local = pairs // 20
    for role, times in (*shares.items(), ("local", local), ("plain", pairs - local - sum(shares.values()))):
        for number in range(SETS):
            some = times * (number + 1) // SETS - times * number // SETS
            name = f"{role}+ssl" if number < WITH_REPLACED else role
            yield f"{name} {role} {LOCAL if role == 'local' else PROGRAM} /usr/share/herd/{number} {some}\n"
