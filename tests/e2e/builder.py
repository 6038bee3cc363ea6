"""Builds the .deb under test from this tree, in a root of the suite that it is for, without network.

Kept outside the tree by the content that it was built from: a second run on the same tree builds nothing.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.e2e import host, roots
from tests.e2e.kept import kept
from tests.e2e.nspawn import inside

TREE = Path(__file__).resolve().parents[2]
PARTS = ("agent", "debian", "docs", "hooks", "systemd", "LICENSE", "README.md")
"""What goes into the package; the tests do not, so that a change of a test builds nothing."""
KEPT = 4

BUILD = """
set -eu
cp -a /source /build
cd /build
export DEB_BUILD_OPTIONS=nocheck DEB_BUILD_PROFILES=nocheck HOME=/root
dpkg-buildpackage --no-sign --build=binary
mv /*.deb /built/
"""


def package(suite: str) -> Path:
    """Return the .deb for `suite`; AFTERCARE_DEB names one that was built elsewhere."""
    if given := os.environ.get("AFTERCARE_DEB"):
        return Path(given)
    kept = roots.cache() / "packages"
    with host.locked(roots.cache() / "packages.lock"):
        home = kept / f"{suite}-{_fingerprint()}"
        if not home.is_dir():
            _build(suite, home)
        os.utime(home)
        for old in sorted(kept.glob(f"{suite}-*"), key=os.path.getmtime)[:-KEPT]:
            shutil.rmtree(old)
    (deb,) = home.glob("aftercare_*.deb")
    return deb


def _files() -> Iterator[Path]:
    for part in PARTS:
        top = TREE / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts and "generated" not in path.parts:
                yield path


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f"{path.relative_to(TREE)} {path.stat().st_mode:o}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(suite: str, home: Path) -> None:
    root = _root(suite)
    roots.progress(f"{suite}: building the package")
    making = home.with_name(f"{home.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    source, built = making / "source", making / "built"
    built.mkdir(parents=True)
    for path in _files():
        target = source / path.relative_to(TREE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    inside(root, BUILD, f"--bind-ro={source}:/source", f"--bind={built}:/built", "--volatile=overlay")
    built.rename(home)
    shutil.rmtree(making)


def _root(suite: str) -> Path:
    """Return a root with the build dependencies of debian/control, made where it is not kept yet."""
    packages = ["build-essential", *_build_dependencies()]

    def make(home: Path) -> None:
        roots.progress(f"{suite}: making a root to build in (once)")
        roots.bootstrap(suite, home, packages)

    return kept(f"build-{suite}", " ".join(packages), make)


def _build_dependencies() -> list[str]:
    control = (TREE / "debian/control").read_text()
    found = re.search(r"^Build-Depends:(.*?)^\S", control, re.MULTILINE | re.DOTALL)
    assert found, "debian/control has no Build-Depends"
    rows = [row.strip() for row in found[1].split(",")]
    return [row.split()[0] for row in rows if row and "<!nocheck>" not in row]
