"""Base root file systems, made once and kept outside of the tree, each with a partial mirror of the archives.

For each suite: a small Debian server made from the *main* archive alone (so that its libraries are the older
ones), and what its security archive has to upgrade it to. A machine that has both needs no network and yet
does a real, signed upgrade. Never touches the host's packages.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from tests.e2e import host, mirror
from tests.e2e.host import Missing, cache, progress
from tests.e2e.mirror import KEYRING, Pair
from tests.e2e.nspawn import inside

__all__ = ["Base", "Missing", "Pair", "base", "bootstrap", "cache", "keep", "progress", "remove_unused"]

SUITES = ("bookworm", "trixie")
RECIPE = (__file__, mirror.__file__)
"""The files whose text decides what is made."""

SERVER = (
    "systemd systemd-sysv dbus libpam-systemd nginx-light openssh-server openssh-client exim4-daemon-light "
    "cron unattended-upgrades ca-certificates iproute2 procps strace fuse3 bindfs"
).split()
DEPENDENCIES = (
    "python3 python3-psutil python3-pyinotify python3-sdnotify python3-debian python3-dnspython python3-rich"
).split()
ONLY = {"bookworm": (), "trixie": ("python3-pyasyncore",)}

CRYPTO = {"bookworm": "libssl3", "trixie": "libssl3t64"}
"""Mapped by nginx and sshd."""
MAIL = "libpcre2-8-0"
"""Mapped by exim4."""
REBUILT = ("libc6",)
"""Packages that one test needs a newer version of, and no other may get."""
BESIDE = ("needrestart",)
"""Packages that a test installs later."""

FURNISH = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
echo machine >/etc/hostname
printf '127.0.0.1 localhost machine.example.org machine\n' >/etc/hosts
cat >/etc/apt/sources.list <<END
deb [check-valid-until=no] file:/mirror/main SUITE main
deb [check-valid-until=no] file:/mirror/security SUITE-security main
END
if [ -d /mirror/substitute ]; then
    echo 'deb [trusted=yes] file:/mirror/substitute ./' >>/etc/apt/sources.list
fi
cat >/etc/apt/apt.conf.d/90machine <<END
Acquire::Languages "none";
APT::Install-Recommends "0";
APT::Periodic::Enable "1";
APT::Periodic::Unattended-Upgrade "always";
Dir::Cache::pkgcache "";
END
for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all exim4-base fstrim; do
    ln -sf /dev/null "/etc/systemd/system/$timer.timer"
done
useradd --create-home --shell /bin/bash alice
useradd --create-home --shell /bin/bash bob
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
for home in /root /home/alice /home/bob; do
    mkdir -p "$home/.ssh"
    cp /root/.ssh/id_ed25519.pub "$home/.ssh/authorized_keys"
    chmod 700 "$home/.ssh"
    chown -R --reference="$home" "$home/.ssh"
done
printf 'UserKnownHostsFile /dev/null\nStrictHostKeyChecking no\nLogLevel ERROR\n' >>/etc/ssh/ssh_config
cat >/etc/systemd/system/harness.service <<END
[Unit]
Description=Where the tests run their commands
RefuseManualStop=yes
[Service]
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
END
systemctl enable -q harness.service
: >/etc/resolv.conf
apt-get -q update
apt-get -q check
"""
USED: list[IO[str]] = []


@dataclass(frozen=True, slots=True)
class Base:
    """A root file system as made by `base`, never booted itself. `pairs`: package → upgrade."""

    suite: str
    tree: Path
    mirror: Path
    pairs: dict[str, Pair]

    @property
    def crypto(self) -> str:
        """The package of the library that nginx and sshd map."""
        return CRYPTO[self.suite]

    @property
    def mail(self) -> str:
        """The package of a library that exim4 maps."""
        return MAIL

    def pair(self, package: str) -> Pair:
        """Return the upgrade of `package`."""
        return self.pairs[package]


def base(suite: str) -> Base:
    """Return the base root of `suite`, making it (half a minute, needs the archives) where none is kept."""
    host.require()
    text = b"".join(Path(file).read_bytes() for file in RECIPE)
    home = cache() / f"{suite}-{hashlib.sha256(text).hexdigest()[:12]}"
    with host.locked(cache() / f"{suite}.lock"):
        if not (home / "pairs.json").exists():
            making = cache() / f"{suite}-making"
            _make(suite, making)
            making.rename(home)
        keep(home)
        remove_unused(suite)
    return _load(suite, home)


def keep(home: Path) -> None:
    """Keep a kept thing from being removed by others while this process lives."""
    handle = open(home / "in-use", "w")
    fcntl.flock(handle, fcntl.LOCK_SH)
    USED.append(handle)


def remove_unused(name: str) -> None:
    """Remove roots of earlier recipes that no test run uses any more."""
    for home in cache().glob(f"{name}-*"):
        with open(home / "in-use", "w") as handle, contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(home)


def bootstrap(suite: str, root: Path, packages: Sequence[str]) -> None:
    """Make a root file system at `root` from the main archive alone."""
    source = f"deb [signed-by={KEYRING}] {mirror.sites()['main']} {suite} main"
    include = f"--include={','.join(packages)}"
    host.output(["mmdebstrap", "--quiet", "--variant=minbase", include, suite, str(root), source])


def _make(suite: str, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    progress(f"{suite}: making a base root with mmdebstrap (once; kept in {cache()})")
    bootstrap(suite, home / "root", [*SERVER, *DEPENDENCIES, *ONLY[suite]])
    progress(f"{suite}: fetching the indices and packages to upgrade to")
    pairs = mirror.fill(home, suite, (CRYPTO[suite], MAIL), REBUILT, BESIDE)
    inside(home / "root", FURNISH.replace("SUITE", suite), f"--bind-ro={home}/mirror:/mirror")
    known = {name: asdict(pair) for name, pair in pairs.items()}
    (home / "pairs.json").write_text(json.dumps(known, indent=1))


def _load(suite: str, home: Path) -> Base:
    known = json.loads((home / "pairs.json").read_text())
    pairs = {name: Pair(**fields) for name, fields in known.items()}
    for name in (CRYPTO[suite], MAIL):
        if pairs[name].rebuilt:
            progress(f"{suite}: the archives have no newer {name}; the tests upgrade to one rebuilt from it")
    return Base(suite, home / "root", home / "mirror", pairs)
