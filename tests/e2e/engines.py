"""Container engines from Debian's own packages, and a tiny image for them, on a machine that was booted without them.

Only the packages are kept outside, 40 MB a suite: they are installed on the machine that a test has. docker is not
among them: its containers need bpf(2) in a system service, which systemd-nspawn denies.
"""

import hashlib
import shutil
from pathlib import Path

from tests.e2e import mirror, roots
from tests.e2e.kept import kept
from tests.e2e.machine import Machine

PACKAGES = "podman crun runc uidmap dbus-user-session lxc systemd-container busybox-static".split()
IMAGE = "/var/tmp/image"
BUILD = rf"""
mkdir -p {IMAGE}
cd {IMAGE}
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc proc sys dev tmp run var root
ln -s usr/bin bin; ln -s usr/sbin sbin; ln -s usr/lib lib; ln -s usr/lib64 lib64
cp /bin/busybox usr/bin/
for name in sh cp mv init reboot; do ln -s busybox usr/bin/$name; done
ln -s ../bin/busybox usr/sbin/init
cp /usr/bin/tiny usr/bin/mine
cp -L --parents $(ldd /usr/bin/tiny | grep -o '/lib[^ ]*') .
echo root:x:0:0::/:/bin/sh >etc/passwd
echo ID=image >etc/os-release
printf '::respawn:/usr/bin/tiny infinity\n::ctrlaltdel:/bin/reboot\n' >etc/inittab
tar -cf {IMAGE}.tar .
"""
"""The program `tiny` comes from the host, by a bind mount: the image has but an empty place for it."""
SETTINGS = """
[containers]
keyring = false
pids_limit = 0
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
runtime = "runc"
"""
"""What the kernel allows in a machine of systemd-nspawn's, whose cgroups have no controllers."""


def packages(suite: str) -> Path:
    """Return the directory of the packages, fetched (some seconds, needs the archives) where they are not kept."""
    below = roots.base(suite)

    def make(home: Path) -> None:
        roots.progress(f"{suite}: fetching container engines (once; kept in {roots.cache()})")
        (home / "root").symlink_to(below.tree)
        apt = mirror.Apt(suite, home)
        apt.get("update")
        apt.get("--download-only", "install", *PACKAGES)
        for deb in (apt.directory / "archives").glob("*.deb"):
            deb.rename(home / deb.name)
        shutil.rmtree(apt.directory)
        (home / "root").unlink()

    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return kept(f"engines-{suite}", f"{below.tree.parent.name} {recipe}", make)


def install(machine: Machine) -> None:
    """Install the engines, and make the image for all of them. /usr/bin/tiny is there already."""
    for deb in packages(machine.suite).glob("*.deb"):
        machine.copy_in(deb, f"/var/tmp/debs/{deb.name}")
    machine.run("dpkg --install /var/tmp/debs/*.deb", timeout=180)
    machine.run(BUILD)
    files, processes = machine.run(["bash", "-c", "ulimit -Hn; ulimit -Hu"]).stdout.split()
    machine.write("/etc/containers/containers.conf", SETTINGS.format(files=files, processes=processes))
    machine.run(f"podman import {IMAGE}.tar image")
