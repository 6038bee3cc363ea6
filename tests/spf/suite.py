"""The test suites of RFC 7208 and RFC 4408, as pyspf's source distribution carries them, and pyspf itself.

They are fetched once by pip from whatever index this machine has, held against their hash before anything of them is
run or read, and kept in the tests' cache. Nothing of them is in this tree.
"""

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from agent.spf.evaluate import Query
from tests.e2e import host
from tests.spf.zone import Zone

NAME = "pyspf-2.0.14"
SHA256 = "57a7ef01bda090173aafb6af0106251686ed73f03db4e911fcd34c57fc347186"
SUITES = {"rfc7208": ("rfc7208-tests.yml", 203), "rfc4408": ("rfc4408-tests.yml", 191)}
"""The file of each suite, and how many cases it has."""
RECEIVER = "unknown"


@dataclass(frozen=True, slots=True)
class Case:
    """One case. results: what is right, the preferred one first. explanation: None where the case has none."""

    suite: str
    name: str
    zone: Zone
    query: Query
    results: tuple[str, ...]
    explanation: str | None

    @property
    def id(self) -> str:
        """Return what pytest calls it."""
        return f"{self.suite}-{self.name}"


@functools.cache
def cases(suite: str) -> tuple[Case, ...]:
    """Return all cases of a suite, in the order of its file."""
    file, count = SUITES[suite]
    found = tuple(_cases(suite, _member(f"test/{file}").decode()))
    assert len(found) == count
    return found


@functools.cache
def pyspf() -> ModuleType:
    """Return pyspf as a module; its `DNSLookup` is for whoever calls to replace."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spf.py"
        path.write_bytes(_member("spf.py"))
        spec = importlib.util.spec_from_file_location("spf", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def _cases(suite: str, text: str) -> Iterator[Case]:
    for scenario in yaml.safe_load_all(text):
        zone = Zone.load(scenario["zonedata"])
        for name, case in scenario["tests"].items():
            wanted = case["result"]
            yield Case(
                suite,
                f"{scenario['description']}-{name}".replace(" ", "_"),
                zone,
                Query(ip_address(case["host"]), case["mailfrom"], case["helo"], RECEIVER),
                (wanted,) if isinstance(wanted, str) else tuple(wanted),
                _explanation(case),
            )


def _explanation(case: dict[str, Any]) -> str | None:
    """A domain without words of its own has none; the suites call that DEFAULT."""
    text = case.get("explanation")
    return "" if text == "DEFAULT" else text


@functools.cache
def _member(name: str) -> bytes:
    with tarfile.open(_archive()) as archive:
        file = archive.extractfile(f"{NAME}/{name}")
        assert file
        return file.read()


@functools.cache
def _archive() -> Path:
    """Return the source distribution, fetching it where it is not kept yet."""
    kept = _cache() / f"{NAME}.tar.gz"
    with host.locked(kept.with_suffix(".lock")):
        if not kept.exists() or _digest(kept) != SHA256:
            _fetch(kept.parent)
        if _digest(kept) != SHA256:
            raise host.Missing(f"{kept} is not the {NAME} whose tests these are")
    return kept


def _fetch(directory: Path) -> None:
    """With the hash in its requirements pip checks before it asks the archive's own code for metadata."""
    project, _, version = NAME.rpartition("-")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{project}=={version} --hash=sha256:{SHA256}\n")
        file.flush()
        options = ["--quiet", "--no-deps", "--no-binary", project, "--require-hashes", "--dest", str(directory)]
        argv = [sys.executable, "-m", "pip", "download", *options, "--requirement", file.name]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise host.Missing(f"pip could not fetch {NAME}, which carries the suites:\n{done.stderr[-2000:]}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _cache() -> Path:
    """Return the tests' cache, or one of this user's own where that is root's."""
    shared = host.cache()
    if os.geteuid() == 0 or os.access(shared, os.W_OK):
        return shared
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / shared.name
