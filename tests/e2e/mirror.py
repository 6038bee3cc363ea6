"""A partial mirror of the archives: the real signed indices, and just the packages that the tests upgrade to.

Where the archives have no newer version of something that a test needs, the installed one is rebuilt with
other build-ids; that is told each time. The host's apt does the fetching, over directories of its own.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.e2e import host

ARCHIVES = ("main", "security")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BUILD_ID_NOTE = re.compile(rb"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")


@dataclass(frozen=True, slots=True)
class Pair:
    """A package of the base root and the newer one beside it; `deb` is its path inside a machine."""

    package: str
    old: str
    new: str
    deb: str
    rebuilt: bool


def sites() -> dict[str, str]:
    """Return the addresses of the main and the security archive, as the host's own apt knows them."""
    found = _known_sites()
    if not found:
        host.progress("fetching the host's lists of packages, to learn where its archives are")
        host.output(["apt-get", "-qq", "update"])
        found = _known_sites()
    if "Debian" not in found or "Debian-Security" not in found:
        raise host.Missing("the host's apt has no main and security archive of Debian in its sources")
    return {"main": found["Debian"], "security": found["Debian-Security"]}


def _known_sites() -> dict[str, str]:
    argv = ["apt-get", "indextargets", "--format", "$(LABEL)|$(SITE)"]
    shown = host.output([*argv, "Created-By: Packages", "Origin: Debian"])
    rows = [row.split("|", 1) for row in shown.splitlines()]
    return {label: site for label, site in reversed(rows)}


def architecture() -> str:
    """Return dpkg's name for what this host runs."""
    return host.output(["dpkg", "--print-architecture"]).strip()


class Apt:
    """The host's apt over directories of its own and the package status of a root: it only ever downloads."""

    def __init__(self, suite: str, home: Path) -> None:
        self.sites = sites()
        self.dists = {"main": suite, "security": f"{suite}-security"}
        self.directory = home / "apt"
        for name in ("lists/partial", "archives/partial"):
            (self.directory / name).mkdir(parents=True)
        about = f"signed-by={KEYRING} check-valid-until=no"
        lines = [f"deb [{about}] {self.sites[name]} {self.dists[name]} main\n" for name in ARCHIVES]
        (self.directory / "sources").write_text("".join(lines))
        settings = {
            "Dir::State::status": home / "root/var/lib/dpkg/status",
            "Dir::State::extended_states": home / "root/var/lib/apt/extended_states",
            "Dir::State::lists": self.directory / "lists",
            "Dir::Cache": self.directory,
            "Dir::Etc::sourcelist": self.directory / "sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "false",
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "0",
            "Debug::NoLocking": "1",
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def get(self, *words: str) -> str:
        """Run apt-get."""
        return host.output(["apt-get", "-q", "-y", *self._options, *words])

    def fetch(self, archive: str, path: str, target: Path) -> None:
        """Download one file of an archive the way apt does."""
        address = f"{self.sites[archive]}/{path}"
        host.output(["/usr/lib/apt/apt-helper", "download-file", address, str(target)])

    def policy(self, package: str) -> tuple[str, str]:
        """Return the installed and the newest version of `package`."""
        text = host.output(["apt-cache", *self._options, "policy", package])
        rows = re.findall(r"^  (?:Installed|Candidate): (\S+)$", text, re.MULTILINE)
        return (rows[0], rows[1]) if len(rows) == 2 else ("(none)", "(none)")

    def upgradable(self) -> list[str]:
        """Return the packages that an upgrade of everything would upgrade."""
        return re.findall(r"^Inst (\S+) \[", self.get("--simulate", "dist-upgrade"), re.MULTILINE)

    def list_of(self, archive: str, ending: str) -> Path:
        """Return an index as apt has fetched and checked it."""
        (found,) = (self.directory / "lists").glob(f"*_dists_{self.dists[archive]}_{ending}")
        return found

    @cached_property
    def downloads(self) -> dict[tuple[str, str], Path]:
        """The packages that were downloaded: (name, version) → file."""
        found = {}
        for deb in (self.directory / "archives").glob("*.deb"):
            form = "--showformat=${Package} ${Version}"
            package, version = host.output(["dpkg-deb", "--show", form, str(deb)]).split()
            found[package, version] = deb
        return found


def fill(
    home: Path, suite: str, needed: tuple[str, ...], rebuilt: tuple[str, ...], beside: tuple[str, ...]
) -> dict[str, Pair]:
    """Make `home`/mirror for the root at `home`/root and return the upgrades that it holds, by package.

    needed: packages that an upgrade is needed of; rebuilt: the same, but outside of the archive, so that only
    who asks for it gets it; beside: packages that may be installed later, with their dependencies.
    """
    apt = Apt(suite, home)
    apt.get("update")
    apt.get("--download-only", "dist-upgrade")
    apt.get("--download-only", "install", *beside)
    installed = [f"{name}={apt.policy(name)[0]}" for name in (*rebuilt, *needed)]
    apt.get("--download-only", "--reinstall", "--allow-downgrades", "install", *installed)
    files = {pair: path for name in ARCHIVES for pair, path in _place(home / "mirror" / name, apt, name)}
    pairs = {name: _published(apt, name, files) for name in apt.upgradable()}
    pairs |= {name: _rebuild(home, apt, name, "rebuilt") for name in rebuilt}
    lacking = [name for name in needed if name not in pairs]
    pairs |= {name: _rebuild(home, apt, name, "substitute") for name in lacking}
    if lacking:
        _index(home / "mirror/substitute", suite, [pairs[name] for name in lacking])
    shutil.rmtree(apt.directory)
    return pairs


def _published(apt: Apt, package: str, files: dict[tuple[str, str], str]) -> Pair:
    old, new = apt.policy(package)
    return Pair(package, old, new, files[package, new], rebuilt=False)


def _place(top: Path, apt: Apt, archive: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Lay an archive out; yield (package, version) → path inside a machine of what is there."""
    dist = f"dists/{apt.dists[archive]}"
    indices = f"{dist}/main/binary-{architecture()}"
    (top / indices).mkdir(parents=True)
    shutil.copy(apt.list_of(archive, "InRelease"), top / dist / "InRelease")
    apt.fetch(archive, f"{indices}/Packages.xz", top / indices / "Packages.xz")
    listed = apt.list_of(archive, f"main_binary-{architecture()}_Packages").read_text()
    for stanza in listed.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Filename): (.*)$", stanza, re.MULTILINE))
        key = fields.get("Package", ""), fields.get("Version", "")
        if key in apt.downloads:
            target = top / fields["Filename"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(apt.downloads[key], target)
            yield key, f"/mirror/{archive}/{fields['Filename']}"


def _rebuild(home: Path, apt: Apt, package: str, folder: str) -> Pair:
    """Make a newer package with other content: every program and library gets another build-id."""
    old = apt.policy(package)[0]
    new = f"{old}+aftercare1"
    host.progress(f"rebuilding {package} {old} as {new} with other build-ids")
    work = home / "rebuild"
    host.output(["dpkg-deb", "--raw-extract", str(apt.downloads[package, old]), str(work)])
    if not sum(change_build_id(path) for path in sorted(work.rglob("*"))):
        raise host.Missing(f"{package} {old} holds no file with a build-id to change")
    control = work / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {new}", control.read_text(), flags=re.MULTILINE))
    (work / "DEBIAN/md5sums").unlink(missing_ok=True)
    target = home / "mirror" / folder
    target.mkdir(parents=True, exist_ok=True)
    name = f"{package}_{new.replace(':', '%3a')}_{architecture()}.deb"
    host.output(["dpkg-deb", "--build", "-Zgzip", "-z1", "--root-owner-group", str(work), str(target / name)])
    shutil.rmtree(work)
    return Pair(package, old, new, f"/mirror/{folder}/{name}", rebuilt=True)


def change_build_id(path: Path) -> bool:
    """Give a program or library another build-id, in place; False where `path` is none, or has none."""
    if path.is_symlink() or not path.is_file():
        return False
    content = path.read_bytes()
    note = BUILD_ID_NOTE.search(content) if content[:4] == b"\x7fELF" else None
    if note is None:
        return False
    with open(path, "r+b") as handle:
        handle.seek(note.end())
        handle.write(bytes(byte ^ 0xFF for byte in content[note.end() : note.end() + 20]))
    return True


def _index(top: Path, suite: str, pairs: list[Pair]) -> None:
    """Make a flat archive of rebuilt packages that unattended-upgrades takes for the security archive."""
    stanzas = []
    for pair in pairs:
        deb = top / Path(pair.deb).name
        fields = host.output(["dpkg-deb", "--field", str(deb)])
        content = deb.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stanzas.append(f"{fields}Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n\n")
    packages = "".join(stanzas)
    (top / "Packages").write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    (top / "Release").write_text(
        f"Origin: Debian\nLabel: Debian-Security\nSuite: {suite}-security\nCodename: {suite}-security\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(packages)} Packages\n"
    )
