"""`agentctl numpy` and its kin: Python environments and their MKL, looked at here and now, without the daemon.

They change nothing. Only `prove` runs anything that was found, when it is asked to, and then as its owner in a sandbox.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from posixpath import basename, dirname
from typing import Any

from agent.checks.numpy import environments, look_of, mounts_of, order_of, tell, wording
from agent.checks.numpy.environments import Known, Order
from agent.checks.numpy.judged import Judged, interpreter, judge_all
from agent.checks.numpy.users import Users, look_at_users
from agent.cli import environments as shown
from agent.cli.output import emit
from agent.config.load import load
from agent.config.settings import options_of
from agent.host.loader.linker import follow
from agent.host.packages import code_paths
from agent.host.python.pyenvs import discover
from agent.host.python.pyfacts import Environment
from agent.host.python.pyroots import read_names
from agent.host.python.pywalk import SITES, Limits
from agent.host.transactions import read_snapshot
from agent.mkl import proof
from agent.mkl.kinds import Kind
from agent.mkl.proof import Outcome
from agent.model import contract
from agent.model.errors import AgentError, Exit
from agent.model.errors import Kind as Problem
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.model.text import printable
from agent.spawn.transient import run_as

PATIENT = Limits(seconds=60.0, root_seconds=30.0)
"""How long a person may wait."""
MKL_FILE = re.compile(r"libmkl_(?:rt|core)\.so(?:\.\d+)?")
INSIDE = ("", "lib", "lib/intel64", "latest/lib")
"""Where a directory that somebody names may have the libraries."""
SANDBOX = {
    "ProtectSystem": "strict",
    "ProtectHome": "read-only",
    "PrivateTmp": "yes",
    "PrivateNetwork": "yes",
    "PrivateDevices": "yes",
    "NoNewPrivileges": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "RestrictSUIDSGID": "yes",
    "CapabilityBoundingSet": "",
    "MemoryMax": "4G",
    "TasksMax": "1024",
}
"""MKL and OpenBLAS start a thread for each processor."""
PROOF_LIMIT = 60.0
TESTS_LIMIT = 1800.0
NOBODY = "nobody"


def numpy(options: Namespace) -> int:
    """Search for environments and print the verdict on each."""
    result = _search(_host(options))
    rows = result.detail["environments"]
    data = {
        "v": 1,
        "checked_at": contract.stamp(datetime.now(UTC)),
        "environments": rows if options.all else [row for row in rows if row["verdict"] != Kind.NOT_MKL],
        "count": sum(result.detail["verdicts"].values()),
        "hidden": 0 if options.all else result.detail["verdicts"].get(Kind.NOT_MKL.value, 0),
        "not_shown": result.detail["not_shown"] if options.all else 0,
        "findings": [contract.finding(finding) for finding in result.findings],
        "passed_over": result.detail["passed_over"],
        "unseen": [printable(line) for line in result.unseen],
    }
    emit(options, data, shown.overview(data))
    return Exit.FINDINGS if result.findings else Exit.CLEAN


def numpy_why(options: Namespace) -> int:
    """Print all that is known of one environment."""
    host = _host(options)
    judged = _judge_named(host, options.environment)
    evidence = wording.evidence_of(judged, read_names(host))
    severity = judged.worst.severity
    emit(options, {"v": 1, **evidence, "severity": severity}, shown.why(evidence | {"severity": severity}))
    if judged.worst.kind is Kind.UNKNOWN:
        return Exit.UNCHECKED
    return Exit.CLEAN if judged.worst.kind in wording.FINE else Exit.FINDINGS


def numpy_predict(options: Namespace) -> int:
    """Print what another MKL, put in the place of the one that each environment uses now, would do to it."""
    host = _host(options)
    directory = _find_mkl(host, options.mkl)
    found = [_judge_named(host, options.environment)] if options.environment else _search_all(host)[2]
    bound = [item for item in found if item.verdict.marks]
    look = look_of(host, mounts_of(host))
    used = {dirname(path) for item in bound for path in item.verdict.marks if "libmkl" in basename(path)}
    look = replace(look, instead={place: directory for place in used})
    then, _ = judge_all(lambda: look, [item.environment for item in bound], Users())
    names = read_names(host)
    data: dict[str, Any] = {"v": 1, "mkl": printable(directory), "predictions": []}
    for now, later in zip(bound, then, strict=True):
        evidence = wording.evidence_of(later, names)
        row = {"environment": evidence["environment"], "now": now.verdict.kind.value, "then": evidence["verdict"]}
        row |= {"severity": later.worst.severity, "summary": evidence["summary"], "evidence": evidence}
        data["predictions"].append(row)
    emit(options, data, shown.prediction(data))
    return Exit.CLEAN if all(item.worst.kind in wording.FINE for item in then) else Exit.FINDINGS


def numpy_prove(options: Namespace) -> int:
    """Run a small numeric proof in an environment, as its owner, and compare it with the verdict."""
    judged = _judge_named(Host(), options.environment)
    user = user_for(judged.environment)
    limit = TESTS_LIMIT if options.tests else PROOF_LIMIT
    argv = [interpreter(judged.environment), "-I", "-B", "-X", "faulthandler", "-c", proof.PROGRAM]
    argv += [judged.environment.site, *(["tests"] if options.tests else [])]
    variables = look_of(Host(), mounts_of(Host())).login
    done = run_as(user, argv, timeout=limit, properties=SANDBOX, environment=variables)
    seen = proof.judge(done.status, done.stdout, done.stderr)
    expected = judged.verdict.expected
    agrees = proof.agrees(seen, judged.verdict.kind, expected.status if expected else None)
    data = {
        "v": 1,
        "environment": printable(judged.environment.path),
        "user": printable(read_names(Host()).get(judged.environment.uid, user) if user != NOBODY else user),
        "verdict": judged.verdict.kind.value,
        "proof": {
            "outcome": seen.outcome.value,
            "stage": printable(seen.stage),
            "status": seen.status,
            "said": printable(seen.said),
            "numpy": printable(seen.numpy),
            "scipy": printable(seen.scipy),
        },
        "agrees": agrees,
    }
    emit(options, data, shown.proof(data))
    return {Outcome.PASSED: Exit.CLEAN, Outcome.NOT_RUN: Exit.UNCHECKED}.get(seen.outcome, Exit.FINDINGS)


def _host(options: Namespace) -> Host:
    if not os.path.isdir(options.root):
        raise AgentError(Problem.UNREADABLE, f"{printable(options.root)} is no directory", "name one with --root DIR")
    return Host(root=options.root if options.root == "/" else os.path.realpath(options.root))


def user_for(environment: Environment) -> str:
    """Return as whom to run what lies in an environment: as its owner, and never as root."""
    if os.geteuid() not in (0, environment.uid):
        message = f"{printable(environment.path)} belongs to another user"
        raise AgentError(Problem.DENIED, message, "prove it as that user, or as root, who then runs it as that user")
    for path in (environment.prefix, f"{environment.prefix}/bin", interpreter(environment)):
        if os.path.lexists(path) and os.lstat(path).st_uid not in (0, environment.uid):
            message = f"{printable(path)} belongs to somebody else than {printable(environment.site)}"
            raise AgentError(Problem.DENIED, message, "what one user has made is not run as another")
    return str(environment.uid) if environment.uid else NOBODY


def _search(host: Host) -> CheckResult:
    known, order, judged, sentences = _search_all(host)
    return tell(host, judged, known, order, sentences)


def _search_all(host: Host) -> tuple[Known, Order, list[Judged], tuple[str, ...]]:
    """Return the environments of the host and the verdicts on them; say where it is to a person who waits."""
    mounts = mounts_of(host)
    users = look_at_users(host)
    order = order_of(host, Request(wording.CHECK, datetime.now(UTC), options=options_of(load(), wording.CHECK)), users)
    known = environments.search(host, mounts, Known(), order, PATIENT, _say)
    _say("")
    judged, sentences = judge_all(lambda: look_of(host, mounts), known.environments, users)
    return known, order, judged, sentences


def _say(root: str) -> None:
    if sys.stderr.isatty():
        words = f"looking below {printable(root)}" if root else ""
        print(f"\r{words:.70}\033[K", end="", file=sys.stderr, flush=True)


def _judge_named(host: Host, name: str) -> Judged:
    """Return the verdict on the environment that is, or lies, at `name`."""
    path = os.path.realpath(name) if host.root == "/" else name.rstrip("/")
    root = dirname(path) if basename(path) in SITES else path
    mounts = mounts_of(host)
    below = discover(host, mounts, [root], PATIENT).environments
    found = [item for item in below if path in (item.site, item.path)] or list(below)
    if not found:
        message = f"{printable(name)} is no Python environment with numpy, scipy or another user of MKL"
        raise AgentError(Problem.USAGE, message, "agentctl numpy --all lists them")
    if len(found) > 1:
        message = f"there are {len(found)} Python environments below {printable(name)}"
        raise AgentError(Problem.USAGE, message, f"name one: {', '.join(printable(item.path) for item in found[:5])}")
    judged, _ = judge_all(lambda: look_of(host, mounts), found, look_at_users(host))
    return judged[0]


def _find_mkl(host: Host, name: str) -> str:
    """Return the directory of the MKL libraries below the directory, or of the installed package, `name`."""
    tops = [follow(host, os.path.abspath(name))] if "/" in name else _directories_of(host, name)
    for place in (os.path.join(top, inner).rstrip("/") for top in tops for inner in INSIDE):
        if os.path.isdir(host.under(place)) and any(map(MKL_FILE.fullmatch, os.listdir(host.under(place)))):
            return place
    hint = "name a directory with libmkl_core.so, such as that of an unpacked package (dpkg-deb -x)"
    raise AgentError(Problem.USAGE, f"no MKL was found in {printable(name)}", hint)


def _directories_of(host: Host, package: str) -> Sequence[str]:
    states = [state for state in read_snapshot(host).values() if state.name == package]
    return sorted({dirname(path) for path, _ in code_paths(host, states) if MKL_FILE.fullmatch(basename(path))})
