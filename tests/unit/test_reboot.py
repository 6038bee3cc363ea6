"""What a reboot would bring into effect: judged, worded, and told to nobody where it is not known."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.checks.reboot import State, judge_kernel, judge_microcode, run
from agent.daemon import telling
from agent.host.kernel import Image, Running
from agent.host.microcode import Processor
from agent.model.errors import AgentError
from agent.model.events import Looked
from agent.model.facts import Host, Transaction
from agent.model.findings import CheckResult, Confidence, Finding, Request
from agent.model.memory import Silence, SilenceKind
from agent.model.view import Phase, View
from tests.unit.small_root import CPUINFO, booted, bzimage, intel, proc, put

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CERTAIN, LIKELY = Confidence.CERTAIN, Confidence.LIKELY


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return booted(tmp_path)


def text(version: str) -> str:
    return f"#1 SMP PREEMPT_DYNAMIC Debian {version} (2026-11-16)"


def running(release: str, version: str) -> Running:
    return Running(release, text(version))


def image(release: str, version: str, build: str | None = None) -> Image:
    return Image(release, f"linux-image-{release}", version, text(version) if build is None else build)


OLD, NEW = image("6.1.0-47-amd64", "6.1.170-3"), image("6.1.0-56-amd64", "6.1.192-2")


def judged(kernel: Running, *images: Image) -> tuple[State, str, Confidence]:
    verdict = judge_kernel(kernel, images)
    return verdict.state, verdict.expected, verdict.confidence


# Kernels


def test_the_newest_kernel_that_runs_is_current() -> None:
    assert judged(running("6.1.0-56-amd64", "6.1.192-2"), OLD, NEW) == (State.CURRENT, "6.1.0-56-amd64", CERTAIN)


@pytest.mark.parametrize("images", [(OLD, NEW), (NEW, OLD), (NEW,)])
def test_a_newer_kernel_is_a_version_upgrade_also_where_the_old_one_was_removed(images: tuple[Image, ...]) -> None:
    expected = (State.VERSION_UPGRADE, "6.1.0-56-amd64", CERTAIN)
    assert judged(running("6.1.0-47-amd64", "6.1.170-3"), *images) == expected


def test_versions_are_in_the_order_of_debian_not_of_letters() -> None:
    low, high = image("6.1.0-9-amd64", "6.1.27-1"), image("6.1.0-10-amd64", "6.1.100-1")
    assert judged(running(low.release, low.version), low, high)[:2] == (State.VERSION_UPGRADE, high.release)
    assert judged(running(high.release, high.version), low, high)[0] is State.CURRENT


def test_a_rebuild_of_the_same_release_is_an_abi_upgrade() -> None:
    expected = (State.ABI_UPGRADE, "6.1.0-56-amd64", CERTAIN)
    assert judged(running("6.1.0-56-amd64", "6.1.192-1"), OLD, NEW) == expected


def test_a_rebuild_that_the_image_does_not_tell_is_only_likely() -> None:
    silent = image("6.1.0-56-arm64", "6.1.192-2", "")
    assert judged(running("6.1.0-56-arm64", "6.1.192-1"), silent) == (State.ABI_UPGRADE, "6.1.0-56-arm64", LIKELY)
    assert judged(running("6.1.0-56-arm64", "6.1.192-2"), silent)[0] is State.CURRENT


def test_another_build_without_another_version_is_only_likely_to_be_newer() -> None:
    rebuilt = image("6.8.0-49-generic", "6.8.0-49.49", "#50-Ubuntu SMP")
    assert judged(Running("6.8.0-49-generic", "#49-Ubuntu SMP"), rebuilt)[::2] == (State.ABI_UPGRADE, LIKELY)
    assert judged(Running("6.8.0-49-generic", "#50-Ubuntu SMP"), rebuilt)[0] is State.CURRENT


def test_a_kernel_that_says_no_version_has_that_of_the_image_that_it_came_from() -> None:
    own = image("6.8.12-4-pve", "6.8.12-4", "#1 SMP PMX 6.8.12-4")
    newer = image("6.8.12-11-pve", "6.8.12-11", "#1 SMP PMX 6.8.12-11")
    kernel = Running("6.8.12-4-pve", "#1 SMP PMX 6.8.12-4")
    assert judged(kernel, own, newer)[0] is State.VERSION_UPGRADE
    assert judged(kernel, newer)[0] is State.UNKNOWN


@pytest.mark.parametrize("release", ["6.1.0-47-cloud-amd64", "6.1.0-47-rt-amd64", "6.18.44-fc-v595", "6.18.44"])
def test_a_kernel_of_another_flavour_says_nothing(release: str) -> None:
    verdict = judge_kernel(running(release, "6.1.170-3"), [NEW])
    assert verdict.state is State.UNKNOWN and verdict.reason


def test_a_kernel_newer_than_all_that_is_installed_is_current() -> None:
    for kernel in (running("6.12.9+bpo-amd64", "6.12.9-1~bpo12+1"), running("6.1.0-56-amd64", "6.1.193-1")):
        verdict = judge_kernel(kernel, [OLD, NEW])
        assert (verdict.state, verdict.expected) == (State.CURRENT, kernel.release)


@pytest.mark.parametrize("mark", ["Debian 6.1.170-3", "Debian 6 1", "Debian 6.1:x:y (", "rubbish"])
def test_a_version_that_is_cut_off_or_rubbish_is_not_known(mark: str) -> None:
    assert judged(Running("6.1.0-47-amd64", f"#1 SMP {mark}"), NEW)[0] is State.UNKNOWN


def test_a_package_with_a_broken_version_is_passed_over() -> None:
    assert judged(running("6.1.0-47-amd64", "6.1.170-3"), image("6.1.0-99-amd64", "not a version"))[0] is State.UNKNOWN


# Microcode

CPU = Processor("GenuineIntel", 6, 0x55, 4, 0x2F, False)


@pytest.mark.parametrize(
    ("newest", "times", "state"),
    [
        (0x30, (20.0, 10.0), State.OBSOLETE),
        (0x30, (5.0, 10.0), State.UNKNOWN),
        (0x30, None, State.UNKNOWN),
        (0x2F, (20.0, 10.0), State.CURRENT),
        (0x11, None, State.CURRENT),
        (None, (20.0, 10.0), State.UNKNOWN),
    ],
)
def test_microcode_that_came_since_the_boot_waits_for_the_next(
    newest: int | None, times: tuple[float, float] | None, state: State
) -> None:
    verdict = judge_microcode(CPU, "intel-microcode", newest, times)
    assert verdict.state is state and verdict.running == "0x2f"
    assert bool(verdict.reason) is (state is State.UNKNOWN)


# The check


def boot(host: Host, release: str, version: str, flags: str = "") -> None:
    proc(host, "sys/kernel/osrelease", f"{release}\n")
    proc(host, "sys/kernel/version", f"{text(version)}\n")
    proc(host, "stat", "btime 1000\n")
    proc(host, "cpuinfo", CPUINFO.format(vendor="GenuineIntel", family=6, model=85, stepping=4, flags=flags))


def install(host: Host, *packages: tuple[str, str]) -> None:
    stanza = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"
    put(host, "/var/lib/dpkg/status", "".join(stanza.format(*one) for one in (("base-files", "12"), *packages)))
    for name, version in packages:
        put(host, f"/var/lib/dpkg/info/{name}.list", "/.\n")
        if name.startswith("linux-image-"):
            release = name.removeprefix("linux-image-")
            put(host, f"/boot/vmlinuz-{release}", bzimage(f"{release} (x@example.org) {text(version)}"))


def check(host: Host) -> CheckResult:
    return run(host, Request("reboot", NOW))


def only(result: CheckResult) -> tuple[Finding, dict[str, Any]]:
    (finding,) = result.findings
    assert isinstance(finding.evidence, dict)
    return finding, finding.evidence


def test_a_new_kernel_is_a_finding_with_all_that_it_takes(host: Host) -> None:
    boot(host, OLD.release, OLD.version)
    install(host, (OLD.package, OLD.version), (NEW.package, NEW.version))
    result = check(host)
    finding, evidence = only(result)
    assert (finding.id, finding.severity, finding.advice) == ("reboot/kernel", "warning", "systemctl reboot")
    assert finding.summary == "Linux 6.1.0-47-amd64 runs; 6.1.0-56-amd64 is installed"
    assert evidence == {
        "kind": "kernel",
        "running": "6.1.0-47-amd64 (6.1.170-3)",
        "expected": "6.1.0-56-amd64 (6.1.192-2)",
        "packages": ["linux-image-6.1.0-56-amd64"],
        "disposition": "reboot",
        "confidence": "certain",
        "cves": [],
        "processes": [],
    }
    assert result.detail["kernel"]["state"] == "version-upgrade" and result.unseen == ()


def test_a_rebuilt_kernel_is_told_by_its_versions(host: Host) -> None:
    boot(host, NEW.release, "6.1.192-1")
    install(host, (NEW.package, NEW.version))
    finding, _ = only(check(host))
    assert finding.summary == "Linux 6.1.0-56-amd64 runs as of 6.1.192-1; its build 6.1.192-2 is installed"


def test_where_all_is_current_only_the_detail_says_so(host: Host) -> None:
    boot(host, NEW.release, NEW.version)
    install(host, (NEW.package, NEW.version))
    result = check(host)
    assert result.findings == () and result.detail["kernel"]["state"] == "current"
    assert result.detail["flag"] is None and "microcode" not in result.detail


def test_an_unknown_is_no_alarm(host: Host) -> None:
    boot(host, "6.18.44-fc-v595", "1")
    install(host)
    result = check(host)
    assert result.findings == () and result.detail["kernel"]["state"] == "unknown"


def test_new_microcode_is_a_finding(host: Host) -> None:
    boot(host, NEW.release, NEW.version)
    install(host, ("intel-microcode", "3.20261110.1~deb12u1"))
    put(host, "/lib/firmware/intel-ucode/06-55-04", intel(0x2007108))
    finding, evidence = only(check(host))
    assert finding.id == "reboot/microcode"
    assert finding.summary == "the processor runs microcode 0x2f; intel-microcode has 0x2007108"
    assert (evidence["running"], evidence["expected"], evidence["confidence"]) == ("0x2f", "0x2007108", "likely")


def test_microcode_that_the_last_boot_did_not_take_is_no_alarm(host: Host) -> None:
    boot(host, NEW.release, NEW.version)
    install(host, ("intel-microcode", "3.20261110.1~deb12u1"))
    put(host, "/lib/firmware/intel-ucode/06-55-04", intel(0x2007108))
    os.utime(host.under("/var/lib/dpkg/info/intel-microcode.list"), (999, 999))
    result = check(host)
    assert result.findings == () and result.detail["microcode"]["state"] == "unknown"


@pytest.mark.parametrize(("flags", "package"), [(" hypervisor", "intel-microcode"), ("", "amd64-microcode")])
def test_microcode_is_nobodys_below_a_hypervisor_or_without_its_package(host: Host, flags: str, package: str) -> None:
    boot(host, NEW.release, NEW.version, flags)
    install(host, (package, "3"))
    put(host, "/lib/firmware/intel-ucode/06-55-04", intel(0x2007108))
    result = check(host)
    assert result.findings == () and "microcode" not in result.detail


def test_in_a_container_the_kernel_is_not_ours_and_dpkg_is_not_even_read(host: Host) -> None:
    put(host, "/run/systemd/container", "systemd-nspawn\n")
    result = check(host)
    assert result.findings == ()
    assert result.detail == {"flag": None, "foreign": "this is a container (systemd-nspawn)"}


def test_a_root_without_dpkg_cannot_be_checked(host: Host) -> None:
    with pytest.raises(AgentError):
        check(host)


@pytest.mark.parametrize("container", [False, True])
def test_who_asked_for_a_reboot_is_told_always(host: Host, container: bool) -> None:
    boot(host, NEW.release, NEW.version)
    install(host)
    if container:
        put(host, "/run/systemd/container", "lxc")
    put(host, "/run/reboot-required", "")
    put(host, "/run/reboot-required.pkgs", "dbus\na\x1b[2J\nc\nd\ne\n")
    finding, evidence = only(check(host))
    assert finding.id == "reboot/reboot-required"
    assert finding.summary == "dbus, a\\x1b[2J, c and 2 more asked for a reboot"
    assert evidence["kind"] == "flag" and evidence["packages"] == ["dbus", "a\\x1b[2J", "c", "d", "e"]


def test_a_flag_without_names_is_somebodys_and_our_own_line_is_no_reason(host: Host) -> None:
    boot(host, NEW.release, NEW.version)
    install(host)
    put(host, "/run/reboot-required", "")
    assert only(check(host))[0].summary == "somebody asks for a reboot (/run/reboot-required)"
    put(host, "/run/reboot-required.pkgs", "aftercare\n")
    assert check(host).findings == ()
    put(host, "/run/reboot-required.pkgs", "aftercare\ndbus\n")
    assert only(check(host))[1]["packages"] == ["dbus"]


def test_a_hostile_list_leaves_one_short_line(host: Host) -> None:
    boot(host, NEW.release, NEW.version)
    install(host)
    put(host, "/run/reboot-required", "")
    put(host, "/run/reboot-required.pkgs", "\n".join(f"{number}{'|' * 9000}" for number in range(5)))
    assert len(only(check(host))[0].summary) <= 100


# The journal


def told(
    before: tuple[Finding, ...], found: tuple[Finding, ...], *silences: Silence
) -> list[tuple[str, dict[str, Any]]]:
    said: list[tuple[str, dict[str, Any]]] = []
    done = Transaction(1, NOW, NOW, "apt", "", (), ())
    view = View(Phase.IDLE, "auto", before)
    after = replace(view, findings=found, silences=silences)
    telling.findings(lambda kind, **fields: said.append((kind, fields)), view, after, Looked((), done), NOW)
    return said


def test_the_journal_does_not_hear_of_what_somebody_silenced(host: Host) -> None:
    boot(host, OLD.release, OLD.version)
    install(host, (NEW.package, NEW.version))
    finding = replace(only(check(host))[0], since=NOW)
    silence = Silence(finding.id, SilenceKind.ACK, "known", 0, NOW, None)
    assert "reboot-needed" in dict(told((), (finding,))) and "reboot-needed" not in dict(told((), (finding,), silence))


def test_the_journal_hears_of_a_reboot_once_and_again_when_it_is_for_something_newer(host: Host) -> None:
    boot(host, OLD.release, OLD.version)
    install(host, (NEW.package, NEW.version))
    finding, evidence = only(check(host))
    earlier = Finding(finding.check, finding.subject, finding.severity, "for an older one", "", evidence)
    news, silence = told((earlier,), (finding,)), told((finding,), (finding,))
    assert [kind for kind, _ in news] == ["reboot-needed", "nothing-stale"]
    assert news[0][1]["summary"] == finding.summary and news[0][1]["packages"] == ["linux-image-6.1.0-56-amd64"]
    assert [kind for kind, _ in silence] == ["nothing-stale"]


def test_a_root_of_a_boot_partition_that_is_gone_has_no_newer_kernel(host: Host, tmp_path: Path) -> None:
    boot(host, OLD.release, OLD.version)
    install(host, (NEW.package, NEW.version))
    Path(host.under("/boot")).rename(tmp_path / "unmounted")
    assert check(host).findings == ()
