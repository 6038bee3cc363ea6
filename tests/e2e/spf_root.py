"""The base root of a suite with nftables in it, as Debian's installer leaves a server; made once, kept outside.

Without `nft` nobody can say whether addresses are rewritten on their way out, and the check `spf` then says unknown.
"""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from tests.e2e import host, mirror, roots
from tests.e2e.nspawn import inside

RECIPE = (__file__,)


def base(suite: str) -> roots.Base:
    """Return that root, made (some seconds, needs the archives) where none is kept."""
    below = roots.base(suite)
    name = f"mail-{suite}"
    text = b"".join(Path(file).read_bytes() for file in RECIPE)
    key = hashlib.sha256(below.tree.parent.name.encode() + text).hexdigest()[:12]
    home = roots.cache() / f"{name}-{key}"
    with host.locked(roots.cache() / f"{name}.lock"):
        if not home.is_dir():
            making = roots.cache() / f"{name}.making"
            _make(below, making)
            making.rename(home)
        roots.keep(home)
        roots.remove_unused(name)
    return replace(below, tree=home / "root")


def _make(below: roots.Base, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    roots.progress(f"{below.suite}: making a root with nftables (once; kept in {roots.cache()})")
    host.output(["cp", "-a", "--reflink=auto", str(below.tree), str(home / "root")])
    apt = mirror.Apt(below.suite, home)
    apt.get("update")
    apt.get("--download-only", "install", "nftables")
    inside(home / "root", "dpkg --install /debs/*.deb", f"--bind-ro={apt.directory}/archives:/debs")
    shutil.rmtree(apt.directory)
