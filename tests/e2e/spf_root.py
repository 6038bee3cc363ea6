"""The base root of a suite with nftables in it, as Debian's installer leaves a server; made once, kept outside.

Without `nft` nobody can say whether addresses are rewritten on their way out, and the check `spf` then says unknown.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.e2e import host, mirror, roots
from tests.e2e.kept import kept
from tests.e2e.nspawn import inside

PACKAGE = "nftables"


def base(suite: str) -> roots.Base:
    """Return that root, made (some seconds, needs the archives) where none is kept."""
    below = roots.base(suite)
    home = kept(f"mail-{suite}", f"{below.tree.parent.name} {PACKAGE}", partial(_make, below))
    return replace(below, tree=home / "root")


def _make(below: roots.Base, home: Path) -> None:
    roots.progress(f"{below.suite}: making a root with {PACKAGE} (once; kept in {roots.cache()})")
    host.output(["cp", "-a", "--reflink=auto", str(below.tree), str(home / "root")])
    apt = mirror.Apt(below.suite, home)
    apt.get("update")
    apt.get("--download-only", "install", PACKAGE)
    inside(home / "root", "dpkg --install /debs/*.deb", f"--bind-ro={apt.directory}/archives:/debs")
    shutil.rmtree(apt.directory)
