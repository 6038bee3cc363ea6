"""The variables that decide which MKL is loaded and how it sets itself up, as those who set them say it.

They come from systemd's own properties of a unit and the files that those name, from /etc/environment, and from conda's
activation scripts: never from the environ of a process, which is its own to write.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.host.beneath import list_beneath, read_beneath
from agent.host.kernel import read_beginning
from agent.host.loader import envfile
from agent.host.mounts import Mounts, open_local
from agent.model.facts import Host
from agent.spawn import run

FILE = "/etc/environment"
"""Read by pam_env at each login, and for cron; not for services."""
WANTED = re.compile(r"LD_LIBRARY_PATH|LD_BIND_NOW|MKL_[A-Z_]{1,60}")
LONGEST_VALUE = 4096
MOST_UNITS = 200
MOST_FILES = 20
NAMED = re.compile(r"(/.*) \(ignore_errors=(?:yes|no)\)")
PROPERTIES = ("Id", "Environment", "EnvironmentFiles", "UnsetEnvironment")

Variables = Mapping[str, str]


ACTIVATION = "etc/conda/activate.d"
EXPORTED = re.compile(r"^\s*export\s+([A-Z_]+)=([\w,.-]*)\s*$", re.MULTILINE)
"""Plain assignments alone: what a shell would work out is left out."""
LARGEST_SCRIPT = 16 << 10
MOST_SCRIPTS = 100


@dataclass(frozen=True, slots=True)
class Declared:
    """What a unit says of its variables. files: of EnvironmentFile=, which count more; unset: names that it drops."""

    variables: Variables
    files: tuple[str, ...] = ()
    unset: frozenset[str] = frozenset()


def read_login(host: Host) -> Variables:
    """Return the variables that /etc/environment sets for logins."""
    return parse_file(os.fsdecode(read_beginning(host.under(FILE)) or b""))


def parse_file(text: str) -> Variables:
    """Return the variables in the text of an environment file as pam_env(8) takes it. Pure."""
    rows = (re.sub(r"^\s*export\s+", "", line).partition("=") for line in text.split("\n"))
    return _wanted((name.strip(), value.strip().strip("'\"")) for name, equals, value in rows if equals)


def read_activation(host: Host, mounts: Mounts, prefix: str) -> Variables:
    """Return the variables that conda sets when the environment at `prefix` is activated: those of its BLAS scripts.

    The scripts are read, never run: conda-forge's libblas for MKL exports MKL_INTERFACE_LAYER=LP64,GNU.
    """
    try:
        with open_local(mounts, host.under(f"{prefix}/{ACTIVATION}")) as directory:
            names = sorted(name for name in list_beneath(directory, "", MOST_SCRIPTS) if name.endswith(".sh"))
            texts = [os.fsdecode(read_beneath(directory, name, LARGEST_SCRIPT) or b"") for name in names]
    except OSError:
        return {}
    return _wanted((found[1], found[2]) for text in texts for found in EXPORTED.finditer(text))


def read_units(host: Host, mounts: Mounts, units: Sequence[str]) -> tuple[dict[str, Variables], tuple[str, ...]]:
    """Return the variables that systemd sets for `units`, and a sentence for each file of theirs that was not read.

    Units without any are left out. Empty where systemd does not run here, and for another root. Raises AgentError where
    systemctl does not answer.
    """
    if host.root != "/" or not units or not os.path.isdir("/run/systemd/system"):
        return {}, ()
    wanted = (f"--property={name}" for name in PROPERTIES)
    done = run(["systemctl", "show", *wanted, "--", *units[:MOST_UNITS]])
    refused: dict[str, None] = {}
    found = {name: _effective(host, mounts, declared, refused) for name, declared in parse_units(done.stdout).items()}
    return {name: variables for name, variables in found.items() if variables}, tuple(refused)


def _effective(host: Host, mounts: Mounts, declared: Declared, refused: dict[str, None]) -> Variables:
    variables = dict(declared.variables)
    for path in declared.files:
        try:
            variables |= _wanted(envfile.parse(envfile.read_file(host, mounts, path)).items())
        except envfile.Refused as problem:
            refused[f"variables of units: {problem}"] = None
    return {name: value for name, value in variables.items() if name not in declared.unset}


def parse_units(text: str) -> dict[str, Declared]:
    """Return what each unit declares in what `systemctl show` printed. Pure."""
    found = {}
    for block in text.split("\n\n"):
        lines = [line.partition("=") for line in block.split("\n")]
        rows = {name: value for name, _, value in lines}
        named = (NAMED.fullmatch(value) for name, _, value in lines if name == "EnvironmentFiles")
        if rows.get("Id"):
            found[rows["Id"]] = Declared(
                _wanted(_pairs(rows.get("Environment", ""))),
                tuple(match[1] for match in named if match)[:MOST_FILES],
                frozenset(name for name, _ in _pairs(rows.get("UnsetEnvironment", ""), bare=True)),
            )
    return found


def _pairs(value: str, bare: bool = False) -> Iterable[tuple[str, str]]:
    """Assignments are printed with the quotes of a shell where they need any. bare: names alone count as well."""
    try:
        words = shlex.split(value)
    except ValueError:
        return
    for word in words:
        name, equals, text = word.partition("=")
        if equals or bare:
            yield name, text


def _wanted(pairs: Iterable[tuple[str, str]]) -> Variables:
    return {name: value[:LONGEST_VALUE] for name, value in pairs if WANTED.fullmatch(name)}
