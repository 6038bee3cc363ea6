"""The check `reboot`: what only a reboot brings into effect: a newer kernel, newer microcode, what others asked for.

It looks and says; it reboots nothing. Kernels are compared by the versions of their packages, within one flavour.
Units that policy leaves to a reboot are findings of `libraries`. An unknown is told in the detail and is no finding.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from debian.debian_support import Version

from agent.host.kernel import (
    IN_PLACE,
    Image,
    Running,
    flavour_of,
    read_foreign,
    read_images,
    read_running,
    read_wanting,
)
from agent.host.microcode import PACKAGES, Processor, read_newest, read_processor, read_times
from agent.host.transactions import read_snapshot
from agent.model.facts import Host, Snapshot
from agent.model.findings import CheckResult, Confidence, Finding, Request, Severity
from agent.model.restarts import Disposition
from agent.model.text import printable

OURS = "aftercare"
"""What aftercare itself writes into /run/reboot-required.pkgs; it is no reason of its own."""
DEBIAN = re.compile(r" Debian (\d\S*) \(")
"""Where Debian's kernels have their package's version in `uname -v`: whole only where something follows it."""
SHOWN = 3


class State(StrEnum):
    """What a reboot would change, as needrestart tells it. OBSOLETE is said of microcode alone."""

    UNKNOWN = "unknown"
    CURRENT = "current"
    ABI_UPGRADE = "abi-upgrade"
    VERSION_UPGRADE = "version-upgrade"
    OBSOLETE = "obsolete"


WANTS_REBOOT = frozenset({State.ABI_UPGRADE, State.VERSION_UPGRADE, State.OBSOLETE})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What runs and what would run. reason: why the state is unknown. `expected` is empty where that is unknown."""

    state: State
    running: str
    expected: str = ""
    running_version: str = ""
    expected_version: str = ""
    package: str = ""
    confidence: Confidence = Confidence.CERTAIN
    reason: str = ""


def run(host: Host, request: Request) -> CheckResult:
    """Return what waits for a reboot.

    Raises AgentError(UNREADABLE) where dpkg's database or the running kernel's name cannot be read.
    """
    foreign = read_foreign(host)
    wanting = read_wanting(host)
    detail: dict[str, Any] = {"flag": None if wanting is None else [printable(name) for name in wanting]}
    findings = [] if wanting is None else _wanted(wanting)
    if foreign:
        return CheckResult(request.check, tuple(findings), detail | {"foreign": printable(foreign)})
    snapshot = read_snapshot(host)
    kernel = judge_kernel(read_running(host), read_images(host, snapshot))
    microcode = _look_at_microcode(host, snapshot)
    verdicts = {"kernel": kernel} | ({"microcode": microcode} if microcode else {})
    found = [_finding(kind, verdict) for kind, verdict in verdicts.items() if verdict.state in WANTS_REBOOT]
    return CheckResult(
        request.check, (*found, *findings), detail | {kind: _shown(verdict) for kind, verdict in verdicts.items()}
    )


def judge_kernel(running: Running, images: Sequence[Image]) -> Verdict:
    """Return whether a reboot would bring a newer kernel of the flavour that runs; pure."""
    flavour = flavour_of(running.release)
    sound = [image for image in images if _is_version(image.version)]
    alike = [image for image in sound if flavour and flavour_of(image.release) == flavour]
    if not alike:
        reason = f"no package of a kernel of the flavour {flavour or 'of ' + running.release} is installed"
        return Verdict(State.UNKNOWN, running.release, reason=reason)
    newest = max(alike, key=lambda image: Version(image.version))
    version = _running_version(running, alike)
    state, confidence = _compare(running, version, newest)
    if state is State.CURRENT:
        return Verdict(state, running.release, running.release, version, version)
    reason = "from which package the kernel that runs came is not known" if state is State.UNKNOWN else ""
    expected = (newest.release, version, newest.version, newest.package)
    return Verdict(state, running.release, *expected, confidence, reason)


def _compare(running: Running, version: str, newest: Image) -> tuple[State, Confidence]:
    """Versions prove which one is newer; another text alone only that it is another build of the same release."""
    same = newest.release == running.release
    rebuilt = same and newest.text not in ("", running.text)
    if same and newest.text == running.text:
        return State.CURRENT, Confidence.CERTAIN
    if not version or version == newest.version:
        unclear = State.CURRENT if version else State.UNKNOWN
        return State.ABI_UPGRADE if rebuilt else unclear, Confidence.LIKELY
    if Version(version) > Version(newest.version):
        return State.CURRENT, Confidence.CERTAIN
    if not same:
        return State.VERSION_UPGRADE, Confidence.CERTAIN
    return State.ABI_UPGRADE, Confidence.CERTAIN if rebuilt else Confidence.LIKELY


def _running_version(running: Running, images: Sequence[Image]) -> str:
    """Return the package version of the kernel that runs: its own word, else that of the image it came from."""
    found = DEBIAN.search(running.text)
    if found and _is_version(found[1]):
        return found[1]
    own = (image for image in images if image.release == running.release and image.text == running.text)
    return next((image.version for image in own), "")


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except ValueError:
        return False
    return True


def _look_at_microcode(host: Host, snapshot: Snapshot) -> Verdict | None:
    """Return the verdict on the microcode; None where it is not ours to load, or no package would load any."""
    processor = read_processor(host)
    if processor is None or processor.virtual:
        return None
    package = PACKAGES.get(processor.vendor, "")
    if not any(state.name == package and state.state in IN_PLACE for state in snapshot.values()):
        return None
    return judge_microcode(processor, package, read_newest(host, processor), read_times(host, package))


def judge_microcode(
    processor: Processor, package: str, newest: int | None, times: tuple[float, float] | None
) -> Verdict:
    """Return whether a reboot would bring newer microcode; pure. times: see `read_times`.

    What was there at the last boot and was not taken (an old initramfs, a loader that refuses it) will not be taken
    at the next one either: that is unknown.
    """
    running = f"{processor.revision:#x}"
    if newest is None:
        reason = f"{package} has none for this processor, or not clearly one"
        return Verdict(State.UNKNOWN, running, package=package, reason=reason)
    if newest <= processor.revision:
        return Verdict(State.CURRENT, running, running, package=package)
    if times is None or times[0] < times[1]:
        was = "was there at the last boot and was not taken" if times else "is of unknown age"
        reason = f"{newest:#x} of {package} {was}"
        return Verdict(State.UNKNOWN, running, f"{newest:#x}", package=package, reason=reason)
    return Verdict(State.OBSOLETE, running, f"{newest:#x}", package=package, confidence=Confidence.LIKELY)


def _finding(kind: str, verdict: Verdict) -> Finding:
    running, expected = verdict.running, verdict.expected
    if verdict.state is State.ABI_UPGRADE:
        old = f" as of {verdict.running_version}" if verdict.running_version else ""
        summary = f"Linux {running} runs{old}; its build {verdict.expected_version} is installed"
    elif verdict.state is State.VERSION_UPGRADE:
        summary = f"Linux {running} runs; {expected} is installed"
    else:
        summary = f"the processor runs microcode {running}; {verdict.package} has {expected}"
    sides = ((running, verdict.running_version), (expected, verdict.expected_version))
    texts = [f"{name} ({version})" if version else name for name, version in sides]
    return _reboot(kind, kind, summary, (texts[0], texts[1]), [verdict.package], verdict.confidence)


def _wanted(packages: Sequence[str]) -> list[Finding]:
    """Return the finding on what others ask for; none where our own line is the only one."""
    names = [printable(name) for name in packages if name != OURS]
    if not names:
        return [] if packages else [_flag("somebody asks for a reboot (/run/reboot-required)", names)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [_flag(f"{', '.join(names[:SHOWN]):.70}{more} asked for a reboot", names)]


def _flag(summary: str, packages: list[str]) -> Finding:
    return _reboot("reboot-required", "flag", summary, ("", ""), packages, Confidence.CERTAIN)


def _reboot(
    subject: str, kind: str, summary: str, sides: tuple[str, str], packages: list[str], confidence: Confidence
) -> Finding:
    return Finding(
        check="reboot",
        subject=subject,
        severity=Severity.WARNING,
        summary=summary,
        advice="systemctl reboot",
        evidence={
            "kind": kind,
            "running": printable(sides[0]),
            "expected": printable(sides[1]),
            "packages": packages,
            "disposition": Disposition.REBOOT.value,
            "confidence": confidence.value,
            "cves": [],
            "processes": [],
        },
    )


def _shown(verdict: Verdict) -> dict[str, str]:
    """Return a verdict for the detail: as it is where nothing is wrong, too."""
    return {
        "state": verdict.state.value,
        "running": printable(verdict.running),
        "running_version": printable(verdict.running_version),
        "expected": printable(verdict.expected),
        "expected_version": printable(verdict.expected_version),
        "reason": printable(verdict.reason),
    }
