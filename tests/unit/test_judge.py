"""What counts as old, what as the same, and what proves it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.model.facts import FileId, Process, Retired, StaleFile
from agent.model.findings import Confidence
from agent.stale.judge import Sighting, confirm, is_gone, judge, original_name

SSL = Retired("/usr/lib/libssl.so.3", "libssl3", "3.0.20", FileId(65024, 4711, 1_700_000_000_000_000_000), 7)
CRYPTO = replace(SSL, path="/usr/lib/libcrypto.so.3", id=FileId(65024, 4712, 1), transaction=5)
NGINX = Process(911, datetime(2026, 11, 22, tzinfo=UTC), 33, "/usr/sbin/nginx", "nginx", "/system.slice/nginx.service")
INSTALLED = {"libssl3": "3.0.22"}


def sighting(old: Retired = SSL, confidence: Confidence = Confidence.CERTAIN, same: bool | None = False) -> Sighting:
    return Sighting(old, confidence, same)


def test_the_recorded_inode_with_its_birth_is_proof() -> None:
    assert confirm(SSL, SSL.id) is Confidence.CERTAIN


@pytest.mark.parametrize("field", ["device", "inode", "born"])
def test_any_other_number_is_another_file(field: str) -> None:
    assert confirm(SSL, replace(SSL.id, **{field: getattr(SSL.id, field) + 1})) is None


def test_what_cannot_be_seen_or_has_no_birth_is_likely() -> None:
    assert confirm(SSL, None) is Confidence.LIKELY
    assert confirm(SSL, replace(SSL.id, born=0)) is Confidence.LIKELY
    assert confirm(replace(SSL, id=replace(SSL.id, born=0)), SSL.id) is Confidence.LIKELY
    assert confirm(SSL, FileId(SSL.id.device, 1, 0)) is None


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("/usr/lib/libz.so.1", "/usr/lib/libz.so.1"),
        ("/usr/lib/libz.so.1 (deleted)", "/usr/lib/libz.so.1"),
        ("/usr/lib/libz.so.1 (deleted) (deleted)", "/usr/lib/libz.so.1 (deleted)"),
        ("/usr/lib/libz.so.1.dpkg-new (deleted)", "/usr/lib/libz.so.1"),
        ("/usr/lib/libz.so.1.dpkg-tmp", "/usr/lib/libz.so.1"),
        ("/usr/lib/x.dpkg-tmp.dpkg-new", "/usr/lib/x.dpkg-tmp"),
        ("/usr/lib/(deleted)", "/usr/lib/(deleted)"),
    ],
)
def test_one_mark_and_one_suffix_of_dpkg_are_taken_off(shown: str, name: str) -> None:
    assert original_name(shown) == name


def test_the_link_count_says_whether_a_file_is_gone_and_the_mark_only_where_it_is_unknown() -> None:
    assert is_gone("/usr/lib/libz.so.1", 0)
    assert not is_gone("/usr/lib/libz.so.1 (deleted)", 1)
    assert is_gone("/usr/lib/libz.so.1 (deleted)", None)
    assert not is_gone("/usr/lib/libz.so.1", None)


def test_a_process_is_stale_with_every_file_in_order() -> None:
    verdict = judge(NGINX, [sighting(), sighting(CRYPTO)], INSTALLED)
    assert verdict.stale is not None
    assert verdict.stale.files == (
        StaleFile(CRYPTO.path, "libssl3", "3.0.20", "3.0.22"),
        StaleFile(SSL.path, "libssl3", "3.0.20", "3.0.22"),
    )
    assert (verdict.stale.pid, verdict.stale.exe, verdict.stale.uid) == (911, "/usr/sbin/nginx", 33)
    assert (verdict.confidence, verdict.transaction, verdict.identical) == (Confidence.CERTAIN, 7, ())


def test_identical_files_make_nothing_stale_and_count_for_no_transaction() -> None:
    verdict = judge(NGINX, [sighting(same=True)], INSTALLED)
    assert verdict.stale is None and verdict.identical == (SSL.path,)
    both = judge(NGINX, [sighting(same=True), sighting(CRYPTO)], INSTALLED)
    assert both.stale and [file.path for file in both.stale.files] == [CRYPTO.path]
    assert both.identical == (SSL.path,) and both.transaction == 5


@pytest.mark.parametrize(
    "weak",
    [sighting(confidence=Confidence.LIKELY), sighting(same=None), sighting(replace(SSL, version=None, transaction=0))],
    ids=["not confirmed", "content unknown", "version unknown"],
)
def test_whatever_is_not_proven_is_likely(weak: Sighting) -> None:
    assert judge(NGINX, [weak], INSTALLED).confidence is Confidence.LIKELY
    assert judge(NGINX, [weak, sighting(CRYPTO)], INSTALLED).confidence is Confidence.CERTAIN
    assert judge(NGINX, [weak, sighting(CRYPTO, same=True)], INSTALLED).confidence is Confidence.LIKELY


def test_a_package_that_is_gone_has_no_installed_version() -> None:
    verdict = judge(NGINX, [sighting()], {})
    assert verdict.stale and verdict.stale.files[0].installed is None
