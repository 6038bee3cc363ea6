"""Facts on kernels and microcode, read from made-up roots with the bytes of real headers."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.kernel import (
    Image,
    Running,
    flavour_of,
    read_beginning,
    read_foreign,
    read_images,
    read_running,
    read_wanting,
)
from agent.host.microcode import Processor, newest_amd, newest_intel, read_newest, read_processor, read_times
from agent.model.errors import AgentError
from agent.model.facts import Host, PackageState
from tests.unit.small_root import BANNER, CPUINFO, RELEASE, TEXT, amd, booted, bzimage, intel, proc, put


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return booted(tmp_path)


def package(name: str, version: str = "6.1.192-2", state: str = "installed") -> PackageState:
    return PackageState(name, "amd64", version, state, "")


def images(host: Host, *packages: PackageState) -> list[Image]:
    return list(read_images(host, {state.key: state for state in packages}))


# What runs


def test_the_kernel_that_runs_is_what_uname_says(host: Host) -> None:
    proc(host, "sys/kernel/osrelease", f"{RELEASE}\n")
    proc(host, "sys/kernel/version", f"{TEXT}\n")
    assert read_running(host) == Running(RELEASE, TEXT)


def test_a_kernel_without_a_name_cannot_be_read(host: Host) -> None:
    with pytest.raises(AgentError, match="which kernel runs"):
        read_running(host)


@pytest.mark.parametrize(
    ("release", "flavour"),
    [
        ("6.1.0-56-amd64", "amd64"),
        ("6.1.0-56-cloud-amd64", "cloud-amd64"),
        ("6.1.0-56-rt-amd64", "rt-amd64"),
        ("6.12.57+deb13-amd64", "amd64"),
        ("6.12.9+bpo-cloud-arm64", "cloud-arm64"),
        ("6.1.0-0.deb11.13-686-pae", "686-pae"),
        ("6.10.3-686-pae", "686-pae"),
        ("6.1.0-13-4kc-malta", "4kc-malta"),
        ("6.17-rc3-amd64", "amd64"),
        ("6.12.57+deb13-arm64-16k", "arm64-16k"),
        ("6.6.51+rpt-rpi-v8", "rpi-v8"),
        ("6.8.12-4-pve", "pve"),
        ("6.18.44", ""),
        ("rubbish", ""),
        ("", ""),
    ],
)
def test_a_flavour_is_what_is_left_of_a_release_without_its_numbers(release: str, flavour: str) -> None:
    assert flavour_of(release) == flavour


# What is installed


def test_an_image_tells_its_build_and_dpkg_its_version(host: Host) -> None:
    put(host, f"/boot/vmlinuz-{RELEASE}", bzimage())
    name = f"linux-image-{RELEASE}"
    assert images(host, package(name)) == [Image(RELEASE, name, "6.1.192-2", TEXT)]


@pytest.mark.parametrize("name", [f"linux-image-{RELEASE}-unsigned", f"proxmox-kernel-{RELEASE}-signed"])
def test_a_kernel_package_has_one_of_a_few_names(host: Host, name: str) -> None:
    put(host, f"/boot/vmlinuz-{RELEASE}", bzimage())
    assert [image.package for image in images(host, package(name))] == [name]


def test_an_image_that_no_package_owns_is_not_counted(host: Host) -> None:
    put(host, "/boot/vmlinuz-6.9.0-mine", bzimage())
    put(host, "/boot/initrd.img-6.9.0-mine", b"")
    assert images(host, package("linux-image-6.8.0-mine")) == []


@pytest.mark.parametrize(("state", "counted"), [("half-configured", 0), ("unpacked", 0), ("triggers-pending", 1)])
def test_a_kernel_that_is_not_configured_has_perhaps_no_initramfs(host: Host, state: str, counted: int) -> None:
    put(host, f"/boot/vmlinuz-{RELEASE}", bzimage())
    assert len(images(host, package(f"linux-image-{RELEASE}", state=state))) == counted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ\0\0zimg" + bytes(0x8000),
        bzimage(magic=b"HdrX"),
        bzimage(pointer=0),
        bzimage(sectors=33),
        bzimage()[:0x4400],
        bzimage(f"6.1.0-55-cloud-amd64 (x@y) {TEXT}"),
        bzimage("x" * 2000),
        bzimage(RELEASE),
        bzimage(BANNER.replace("#1", "1")),
    ],
)
def test_an_image_that_does_not_tell_its_build_is_never_guessed_at(host: Host, data: bytes) -> None:
    put(host, f"/boot/vmlinuz-{RELEASE}", data)
    assert [image.text for image in images(host, package(f"linux-image-{RELEASE}"))] == [""]


def test_without_a_boot_directory_there_is_no_kernel(host: Host) -> None:
    assert images(host, package(f"linux-image-{RELEASE}")) == []


# Whose kernel it is


def test_the_kernel_of_what_was_booted_is_our_own(host: Host) -> None:
    put(host, "/.dockerenv", "")
    assert read_foreign(host) == ""


def test_the_kernel_of_another_root_is_not_our_own(host: Host, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert read_foreign(Host(str(tmp_path / "other"), host.proc)) == "this is not the root that was booted"
    assert read_foreign(Host(str(tmp_path / "other"), "/nowhere")) == "this is not the root that was booted"


@pytest.mark.parametrize(("text", "kind"), [("systemd-nspawn\n", "systemd-nspawn"), ("", "of unknown kind")])
def test_the_kernel_of_a_container_is_not_its_own(host: Host, text: str, kind: str) -> None:
    put(host, "/run/systemd/container", text)
    assert read_foreign(host) == f"this is a container ({kind})"


@pytest.mark.parametrize(("mark", "kind"), [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")])
def test_a_container_without_systemd_is_known_by_its_mark(host: Host, mark: str, kind: str) -> None:
    Path(host.under("/run/systemd/system")).rmdir()
    put(host, mark, "")
    assert read_foreign(host) == f"this is a container ({kind})"


# Who asked for a reboot


def test_nobody_asks_for_a_reboot_where_there_is_no_flag(host: Host) -> None:
    put(host, "/run/reboot-required.pkgs", "dbus\n")
    assert read_wanting(host) is None


def test_those_who_ask_are_named_once_each_in_order(host: Host) -> None:
    put(host, "/run/reboot-required", "*** System restart required ***\n")
    assert read_wanting(host) == ()
    put(host, "/run/reboot-required.pkgs", b"linux-base\ndbus\n\nlinux-base\n \xff")
    assert read_wanting(host) == ("linux-base", "dbus", "\udcff")


def test_a_list_without_an_end_is_cut_off(host: Host) -> None:
    put(host, "/run/reboot-required", "")
    put(host, "/run/reboot-required.pkgs", b"".join(b"%d\n" % number for number in range(100_000)))
    assert len(read_wanting(host) or ()) == 1000


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_beginning(str(tmp_path / "fifo")) is None
    assert read_beginning(str(tmp_path)) is None


# The processor

SKYLAKE = Processor("GenuineIntel", 6, 0x55, 4, 0x2F, False)
MILAN = Processor("AuthenticAMD", 0x19, 1, 1, 0xA0011D1, False)


@pytest.mark.parametrize(("flags", "virtual"), [("", False), (" hypervisor lahf_lm", True)])
def test_the_processor_is_the_first_of_cpuinfo(host: Host, flags: str, virtual: bool) -> None:
    text = CPUINFO.format(vendor="GenuineIntel", family=6, model=85, stepping=4, flags=flags)
    proc(host, "cpuinfo", text)
    assert read_processor(host) == Processor("GenuineIntel", 6, 85, 4, 0x2F, virtual)


@pytest.mark.parametrize(
    "text", ["", "processor: 0\nBogoMIPS: 50.00\nFeatures: fp asimd\n", "vendor_id: x\nmodel: y\n"]
)
def test_a_processor_without_microcode_is_none(host: Host, text: str) -> None:
    proc(host, "cpuinfo", text)
    assert read_processor(host) is None


def test_a_signature_is_that_of_cpuid() -> None:
    assert SKYLAKE.signature == 0x50654
    assert MILAN.signature == 0xA00F11
    assert Processor("AuthenticAMD", 0x10, 8, 0, 0, False).signature == 0x100F80


def test_intel_the_newest_update_for_signature_and_platform_counts() -> None:
    data = intel(0x30) + intel(0x32) + intel(0x99, signature=0x50657) + intel(0x44, mask=0x08)
    assert newest_intel(data, 0x50654, 0x80) == 0x32
    assert newest_intel(data, 0x50654, 0x08) == 0x44
    assert newest_intel(data, 0x50654, 0x40000) is None
    assert newest_intel(data, 0x50655, 0x80) is None


def test_intel_without_the_platform_what_differs_by_platform_is_not_clear() -> None:
    assert newest_intel(intel(0x30) + intel(0x32), 0x50654, None) == 0x32
    assert newest_intel(intel(0x32) + intel(0x32, mask=0x08), 0x50654, None) == 0x32
    assert newest_intel(intel(0x32) + intel(0x44, mask=0x08), 0x50654, None) is None


def test_intel_an_update_may_be_for_several_signatures() -> None:
    data = intel(0x30, signature=0x806E9, extra=((0x50654, 0x80), (0x806EA, 0xC0)), size=4096)
    assert newest_intel(data, 0x50654, 0x80) == 0x30
    assert newest_intel(data, 0x50654, 0x40) is None
    assert newest_intel(data + intel(0x31), 0x50654, 0x80) == 0x31


def test_amd_the_newest_patch_for_what_the_processor_equals_counts() -> None:
    data = amd((0xA0011D1, 0xA011), (0xA0011D5, 0xA011), (0xA0012FF, 0xA012))
    assert newest_amd(data, 0xA00F11) == 0xA0011D5
    assert newest_amd(data, 0xA00F12) is None


def test_amd_each_container_of_a_file_has_its_own_table() -> None:
    other = amd((0xFFFFFFF, 0xA011), equivalents=((0x800F12, 0xA011),))
    assert newest_amd(other + amd((0xA0011D5, 0xA011)), 0xA00F11) == 0xA0011D5
    assert newest_amd(amd((0xA0011D5, 0xA011)) + other, 0xA00F11) == 0xA0011D5


@given(st.binary(max_size=200), st.integers(0, 2047), st.booleans())
def test_a_damaged_file_ends_where_it_is_damaged(rubbish: bytes, cut: int, first: bool) -> None:
    for sound, newest in ((intel(0x30), lambda data: newest_intel(data, 0x50654, 0x80)), (amd((7, 0xA011)), _amd)):
        spoilt = rubbish + sound if first else sound[:cut] + rubbish
        assert newest(spoilt) is None or isinstance(newest(spoilt), int)
        assert newest(sound[:cut]) is None
    assert newest_intel(intel(0x30) + rubbish[:40], 0x50654, 0x80) == 0x30


def _amd(data: bytes) -> int | None:
    return newest_amd(data, 0xA00F11)


def test_a_size_that_claims_more_than_the_file_has_is_not_followed() -> None:
    assert newest_amd(b"DMA\0" + struct.pack("<II", 0, 1 << 31), 0xA00F11) is None
    claims = struct.pack("<IIIIIIIII12x", 1, 9, 0, 0x50654, 0, 1, 0x80, 0xFFFFFFF0, 0xFFFFFFFF)
    assert newest_intel(claims + bytes(4000), 0x50654, 0x80) is None
    table = intel(9, extra=((0x1, 0x1),), size=2000)
    assert newest_intel(table.replace(struct.pack("<II", 1, 0), struct.pack("<II", 1 << 31, 0)), 0x50654, 0xB7) == 9


def test_firmware_is_found_by_the_names_that_the_kernel_has_for_it(host: Host) -> None:
    assert read_newest(host, SKYLAKE) is None and read_newest(host, MILAN) is None
    put(host, "/lib/firmware/intel-ucode/06-55-04", intel(0x30, mask=0x80) + intel(0x44, mask=0x08))
    put(host, "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin", amd((0xA0011D5, 0xA011)))
    put(host, "/lib/firmware/amd-ucode/microcode_amd.bin", amd((0x1000009, 0x1080), equivalents=((0x100F80, 0x1080),)))
    assert read_newest(host, SKYLAKE) is None
    put(host, "/sys/devices/system/cpu/cpu0/microcode/processor_flags", "0x80\n")
    assert read_newest(host, SKYLAKE) == 0x30
    put(host, "/lib/firmware/intel-ucode/06-55-04.initramfs", intel(0x31, mask=0x80))
    assert read_newest(host, SKYLAKE) == 0x31
    assert read_newest(host, MILAN) == 0xA0011D5
    assert read_newest(host, Processor("AuthenticAMD", 0x10, 8, 0, 0, False)) == 0x1000009


def test_times_are_those_of_dpkg_and_of_the_boot(host: Host) -> None:
    assert read_times(host, "intel-microcode") is None
    put(host, "/var/lib/dpkg/info/intel-microcode.list", "/.\n")
    os.utime(host.under("/var/lib/dpkg/info/intel-microcode.list"), (5, 1700000000))
    assert read_times(host, "intel-microcode") is None
    proc(host, "stat", "cpu  1 2 3\nintr 5\nbtime 1690000000\nprocesses 4\n")
    assert read_times(host, "intel-microcode") == (1700000000.0, 1690000000.0)
