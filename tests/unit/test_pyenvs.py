"""Python environments: all kinds are found, described and found again; nothing leads the search astray."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host.mounts import Mount, mount_of, open_local, parse_mounts
from agent.host.python.pyconfig import Build, parse_build, read_build
from agent.host.python.pyenvs import discover, merge, pack, read_sites, recheck, unpack
from agent.host.python.pyfacts import Environment
from agent.host.python.pyroots import find_roots, read_homes
from agent.host.python.pywalk import Limits
from agent.model.facts import Host
from tests.unit.small_python import CORE, SUFFIX, accounts, found, grow_old, kinds, mounts, put, site, venv


def only(root: Path) -> Environment:
    (environment,) = found(root).environments
    return environment


# Kinds


def test_every_kind_of_environment_is_found_where_its_tool_puts_it(tmp_path: Path) -> None:
    accounts(tmp_path, alice="/home/alice")
    home = "/home/alice"
    site(tmp_path, "/usr/lib/python3/dist-packages")
    site(tmp_path, "/usr/local/lib/python3.11/dist-packages")
    site(tmp_path, f"{home}/.local/lib/python3.11/site-packages")
    site(tmp_path, f"{home}/.pyenv/versions/3.11.7/lib/python3.11/site-packages")
    site(tmp_path, f"{home}/.asdf/installs/python/3.12.1/lib/python3.12/site-packages")
    venv(tmp_path, f"{home}/projects/.venv")
    venv(tmp_path, f"{home}/fast/.venv", "uv = 0.9.1\nversion_info = 3.11.2\n")
    venv(tmp_path, "/srv/old/env", "virtualenv = 20.24.5\nversion_info = 3.11.2.final.0\n")
    venv(tmp_path, "/opt/pipx/venvs/tool")
    venv(tmp_path, f"{home}/.cache/pypoetry/virtualenvs/app-x1-py3.11")
    put(tmp_path, "/opt/conda/conda-meta/mkl-2023.1.0-h213fc3f_46344.json")
    site(tmp_path, "/opt/conda/lib/python3.11/site-packages")
    put(tmp_path, "/opt/conda/envs/sci/conda-meta/history")
    site(tmp_path, "/opt/conda/envs/sci/lib/python3.11/site-packages")
    assert kinds(found(tmp_path)) == {
        "/usr/lib/python3/dist-packages": "debian",
        "/usr/local/lib/python3.11/dist-packages": "local",
        f"{home}/.local/lib/python3.11/site-packages": "user",
        f"{home}/.pyenv/versions/3.11.7/lib/python3.11/site-packages": "pyenv",
        f"{home}/.asdf/installs/python/3.12.1/lib/python3.12/site-packages": "asdf",
        f"{home}/projects/.venv": "venv",
        f"{home}/fast/.venv": "uv",
        "/srv/old/env": "virtualenv",
        "/opt/pipx/venvs/tool": "pipx",
        f"{home}/.cache/pypoetry/virtualenvs/app-x1-py3.11": "poetry",
        "/opt/conda": "conda",
        "/opt/conda/envs/sci": "conda",
    }


def test_an_environment_is_described_from_names_and_metadata_alone(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app", "version_info = 3.11.2.final.0\n")
    put(place, "mkl-2025.3.1.dist-info/METADATA")
    put(place, "mkl_fft/.keep")
    text = (
        "Name: mkl_fft\nRequires-Dist: numpy\nRequires-Dist: mkl >=2026.1,<2027.0a0\n\nRequires-Dist: mkl in the text\n"
    )
    put(place, "mkl_fft-1.3.14.dist-info/METADATA", text)
    environment = only(tmp_path)
    assert (environment.python, environment.numpy, environment.scipy) == ("3.11.2", "2.3.5", "1.16.3")
    assert (environment.mkl, environment.manager) == ("2025.3.1", "pip")
    assert environment.requires == ("mkl_fft: mkl >=2026.1,<2027.0a0",)
    assert environment.uid == os.geteuid()
    assert [item.path for item in environment.modules][:2] == [CORE, f"numpy/linalg/_umath_linalg.{SUFFIX}"]
    assert len(environment.modules) == 5
    assert environment.problems == ()


def test_a_package_that_requires_far_too_much_is_quoted_in_part(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    put(place, "mkl_fft/.keep")
    put(place, "mkl_fft-1.3.14.dist-info/METADATA", "Requires-Dist: mkl >=2026.1\n" * 1000)
    assert len(only(tmp_path).requires) == 10


def test_conda_says_its_own_versions(tmp_path: Path) -> None:
    for name in ("mkl-2023.1.0-h213fc3f_46344", "python-3.11.9-h955ad1f_0", "intel-openmp-2023.1.0-h1_0"):
        put(tmp_path, f"/opt/conda/conda-meta/{name}.json")
    site(tmp_path, "/opt/conda/lib/python3.11/site-packages")
    environment = only(tmp_path)
    assert (environment.python, environment.mkl, environment.manager) == ("3.11.9", "2023.1.0", "conda")


def test_debians_python_is_told_by_the_tag_of_its_modules(tmp_path: Path) -> None:
    place = site(tmp_path, "/usr/lib/python3/dist-packages", numpy="", scipy="")
    put(place, "numpy-1.24.2.egg-info/PKG-INFO")
    put(place, f"numpy/core/_multiarray_umath.{SUFFIX}")
    environment = only(tmp_path)
    assert (environment.python, environment.numpy, environment.scipy) == ("3.11", "1.24.2", "")


def test_a_site_directory_without_any_user_of_mkl_is_no_environment_of_interest(tmp_path: Path) -> None:
    site(tmp_path, "/srv/app/lib/python3.11/site-packages", numpy="", scipy="", more=["requests/"])
    assert found(tmp_path).environments == ()


def test_two_pythons_in_one_environment_go_by_their_site_directories(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    site(tmp_path, "/srv/app/lib/python3.12/site-packages")
    assert sorted(kinds(found(tmp_path))) == [f"/srv/app/lib/python3.{minor}/site-packages" for minor in (11, 12)]


# Where to look


def test_homes_are_those_of_passwd_but_none_of_the_systems_own_directories(tmp_path: Path) -> None:
    accounts(tmp_path, bin="/bin", games="/usr/games", odd="/var", top="/", up="/home/../etc", web="/var/www")
    assert read_homes(Host(str(tmp_path))) == ["/root", "/var/www"]


def test_conda_notes_lead_to_environments_elsewhere_but_to_nothing_else(tmp_path: Path) -> None:
    accounts(tmp_path, alice="/home/alice")
    put(tmp_path, "/data/env/conda-meta/history")
    site(tmp_path, "/data/env/lib/python3.11/site-packages")
    venv(tmp_path, "/data/other")
    put(tmp_path, "/home/alice/.conda/environments.txt", "/data/env\n/data\n/data/../etc\nrelative\n/\0\n")
    assert kinds(found(tmp_path)) == {"/data/env": "conda"}


def test_what_the_admin_names_is_searched_and_what_a_process_shows_is_read_without_a_search(tmp_path: Path) -> None:
    place = venv(tmp_path, "/data/app")
    venv(tmp_path, "/data/other")
    venv(tmp_path, "/scratch/deep/one")
    assert kinds(found(tmp_path, extra=("/scratch",))) == {"/scratch/deep/one": "venv"}
    host = Host(str(tmp_path))
    shown = read_sites(host, mounts(), [f"/{place.relative_to(tmp_path)}", "/nowhere/site-packages", "/data"])
    assert [item.path for item in shown] == ["/data/app"]


def test_mounts_below_a_root_are_roots_but_not_those_of_containers(tmp_path: Path) -> None:
    places = ("srv/disk", "var/lib/docker/overlay2/x/merged", "srv/.cache/x", "opt/far", "data")
    known = mounts() | {f"{tmp_path}/{place}": Mount(f"{tmp_path}/{place}", "overlay") for place in places}
    roots = find_roots(Host(str(tmp_path)), known)
    assert [root for root in roots if root.lstrip("/") in places] == ["/opt/far", "/srv/disk"]


def test_a_root_that_cannot_be_opened_is_told_and_one_that_is_not_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    discovery = discover(Host(str(tmp_path)), mounts(), ["/link", "/nowhere"])
    assert discovery.incomplete == ("/link could not be opened: Too many levels of symbolic links",)


def test_caches_containers_and_checkouts_are_not_entered_and_containers_are_told(tmp_path: Path) -> None:
    for place in ("/srv/.git/x", "/srv/a/node_modules/x", "/srv/.cache/x", "/var/lib/docker/overlay2/x"):
        venv(tmp_path, place)
    put(tmp_path, "/opt/conda/conda-meta/history")
    site(tmp_path, "/opt/conda/pkgs/numpy-2/lib/python3.11/site-packages")
    venv(tmp_path, "/srv/pkgs/app")
    discovery = found(tmp_path)
    assert kinds(discovery) == {"/srv/pkgs/app": "venv"}
    assert discovery.passed_over == ("other systems are not looked at: /var/lib/docker",)


def test_a_root_that_lies_within_another_is_read_once(tmp_path: Path) -> None:
    venv(tmp_path, "/var/lib/postgresql/app")
    host = Host(str(tmp_path))
    outer = discover(host, mounts(), ["/var/lib"])
    both = discover(host, mounts(), ["/var/lib", "/var/lib/postgresql"])
    assert kinds(both) == kinds(outer) == {"/var/lib/postgresql/app": "venv"}
    assert both.entries == outer.entries


# Limits, each told by its name


def test_depth_is_limited_and_what_lies_deeper_is_told(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/" + "/".join("abcdefghijklmn"))
    discovery = found(tmp_path)
    assert discovery.environments == ()
    assert discovery.passed_over == ("deeper than 12 levels below /srv: 1 directory",)


def test_the_number_of_entries_below_a_root_is_limited_and_other_roots_do_not_suffer(tmp_path: Path) -> None:
    for number in range(30):
        put(tmp_path, f"/opt/many/{number}")
    venv(tmp_path, "/srv/app")
    discovery = found(tmp_path, Limits(entries=20))
    assert kinds(discovery) == {"/srv/app": "venv"}
    assert discovery.incomplete == ("/opt has more than 20 files and directories: the rest was not looked at",)


def test_the_number_of_environments_below_a_root_is_limited(tmp_path: Path) -> None:
    for number in range(5):
        venv(tmp_path, f"/opt/{number}")
    venv(tmp_path, "/srv/app")
    discovery = found(tmp_path, Limits(environments=3))
    assert len(discovery.environments) == 4
    assert discovery.incomplete == ("/opt has more than 3 Python environments: the rest was not looked at",)


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_time_is_limited_and_the_roots_that_are_left_are_first_the_next_time(tmp_path: Path) -> None:
    venv(tmp_path, "/opt/a")
    venv(tmp_path, "/srv/b")
    ticks = ticking(1.0)
    host = Host(str(tmp_path))
    discovery = discover(host, mounts(), ["/opt", "/srv"], Limits(seconds=4, root_seconds=2), lambda: next(ticks))
    assert discovery.environments == ()
    assert discovery.left == ("/srv",)
    assert discovery.incomplete == (
        "/opt was not looked at to its end for want of time",
        "not looked at for want of time: /srv",
    )


def test_file_systems_of_other_machines_are_passed_over_without_a_touch(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/app")
    remote = mounts() | {f"{tmp_path}/srv": Mount(f"{tmp_path}/srv", "nfs4")}
    discovery = discover(Host(str(tmp_path)), remote, ["/srv"])
    assert discovery.environments == ()
    assert discovery.passed_over == ("/srv is on nfs4",)
    with pytest.raises(OSError, match="is on nfs4"), open_local(remote, f"{tmp_path}/srv/app"):
        pass


def test_mounts_are_read_as_the_kernel_writes_them() -> None:
    text = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:35 / /mnt/my\\040disk rw - fuse.sshfs eve@host:/ rw\n"
        "41 22 8:2 / /srv rw - ext4 /dev/sdb rw\n42 41 0:36 / /srv rw - nfs server:/ rw\nnonsense\n"
    )
    known = parse_mounts(text.splitlines())
    assert {path: mount.kind for path, mount in known.items()} == {
        "/": "ext4",
        "/mnt/my disk": "fuse.sshfs",
        "/srv": "nfs",
    }
    assert mount_of(known, "/srv/app").kind == "nfs"
    assert mount_of(known, "/srvice").kind == "ext4"


# Nothing leads astray


def test_no_symbolic_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    venv(tmp_path, "/data/hidden")
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/loop").symlink_to(".")
    (tmp_path / "srv/out").symlink_to("/data")
    (tmp_path / "srv/out2").symlink_to("../data/hidden")
    assert found(tmp_path).environments == ()


def test_what_is_in_the_way_of_an_environment_is_told_with_a_sentence(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    shutil.rmtree(place / "numpy/_core")
    os.mkfifo(place / "numpy/_core")
    (place / "numpy/core").symlink_to("linalg")
    (place / f"scipy/linalg/_fblas.{SUFFIX}").unlink()
    os.mkfifo(place / f"scipy/linalg/_fblas.{SUFFIX}")
    assert only(tmp_path).problems == (
        "numpy/_core is no directory",
        "numpy/core is a symbolic link, which is not followed",
        f"scipy/linalg/_fblas.{SUFFIX} is no regular file",
    )


def test_a_module_that_is_a_link_to_a_file_counts_and_is_known_by_the_link(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    cached = put(tmp_path, "/srv/.cache/core.so")
    (place / CORE).unlink()
    (place / CORE).symlink_to(cached)
    environment = only(tmp_path)
    assert environment.problems == ()
    assert environment.modules[0].stamp[1] == (place / CORE).lstat().st_ino != cached.stat().st_ino


def test_a_fifo_named_numpy_and_one_as_metadata_hold_nobody(tmp_path: Path) -> None:
    place = site(tmp_path, "/srv/app/lib/python3.11/site-packages", numpy="")
    os.mkfifo(place / "numpy")
    (place / "numpy-1.dist-info").mkdir()
    os.mkfifo(place / "numpy-1.dist-info/METADATA")
    os.mkfifo(tmp_path / "srv/app/pyvenv.cfg")
    environment = only(tmp_path)
    assert environment.scipy == "1.16.3"
    assert "numpy/_core is no directory" in environment.problems


# Again


def test_a_known_environment_is_read_again_only_where_something_of_it_changed(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    venv(tmp_path, "/srv/other")
    host = Host(str(tmp_path))
    first = found(tmp_path).environments
    again = recheck(host, mounts(), first)
    assert all(now is then for now, then in zip(again, first, strict=True))
    grow_old(place / CORE)
    (changed,) = (item for item in first if item.path == "/srv/app")
    now = {item.path: item for item in recheck(host, mounts(), first)}
    assert now["/srv/app"] != changed
    assert now["/srv/other"] in first


def test_an_upgrade_within_an_environment_is_seen(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    before = found(tmp_path).environments
    (place / "numpy-2.3.5.dist-info").rename(place / "numpy-2.4.0.dist-info")
    (now,) = recheck(Host(str(tmp_path)), mounts(), before)
    assert now.numpy == "2.4.0"


def test_an_environment_that_is_gone_or_became_a_link_is_forgotten(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/gone")
    venv(tmp_path, "/srv/link")
    before = found(tmp_path).environments
    shutil.rmtree(tmp_path / "srv/gone")
    (tmp_path / "srv/link").rename(tmp_path / "srv/elsewhere")
    (tmp_path / "srv/link").symlink_to("elsewhere")
    assert recheck(Host(str(tmp_path)), mounts(), before) == ()


def test_an_environment_survives_as_plain_json(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/caf\udce9\n\x1b[31m")
    environments = found(tmp_path).environments
    assert tuple(unpack(row) for row in json.loads(json.dumps([pack(item) for item in environments]))) == environments
    for wrong in ("", "AAAA", "?", 7):
        with pytest.raises((ValueError, TypeError)):
            unpack([*pack(environments[0])[:-1], wrong])


def test_what_was_found_anew_counts_and_what_was_not_looked_for_stays(tmp_path: Path) -> None:
    venv(tmp_path, "/srv/a", numpy="1.26.4")
    venv(tmp_path, "/srv/b")
    old = found(tmp_path).environments
    place = tmp_path / "srv/a/lib/python3.11/site-packages"
    (place / "numpy-1.26.4.dist-info").rename(place / "numpy-2.0.0.dist-info")
    new = discover(Host(str(tmp_path)), mounts(), ["/srv/a"]).environments
    assert {item.path: item.numpy for item in merge(old, new)} == {"/srv/a": "2.0.0", "/srv/b": "2.3.5"}


# numpy's word on its own build

MESON = """
from enum import Enum
from numpy._core._multiarray_umath import __cpu_features__
raise SystemExit("this file was run")
CONFIG = _cleanup({
    "Compilers": {"c": {"name": "gcc", "args": r"-O2, -g"}},
    "Build Dependencies": {
        "blas": {"name": "mkl-sdl", "found": bool("True".lower().replace("false", "")), "version": "2024.2.2",
                 "lib directory": r"/opt/mkl/lib"},
        "lapack": {"name": "mkl-sdl"},
    },
    "SIMD Extensions": {"found": [feature for feature in __cpu_dispatch__ if __cpu_features__[feature]]},
})
"""
DISTUTILS = """
__all__ = ["get_info","show"]
extra_dll_dir = os.path.join(os.path.dirname(__file__), '.libs')
blas_info={'libraries': ['blas', 'blas'], 'library_dirs': ['/usr/lib'], 'language': 'c'}
blas_mkl_info={'libraries': ['pthread', 'mkl_rt'], 'library_dirs': ['/opt/intel/lib'], 'define_macros': [('X', None)]}
lapack_opt_info={}
"""


@pytest.mark.parametrize(
    ("text", "build"),
    [
        (MESON, Build("mkl-sdl", "2024.2.2", "/opt/mkl/lib")),
        (DISTUTILS, Build("mkl_rt", "", "/opt/intel/lib")),
        ("blas_info={'libraries': ['blas']}\nblas_mkl_info={}", Build("blas", "", "")),
        ("CONFIG = 3", Build()),
        ("CONFIG = {'Build Dependencies': [1]}", Build()),
        ("CONFIG = {", Build()),
        ("\0", Build()),
        ("", Build()),
    ],
)
def test_both_forms_of_numpys_configuration_are_understood(text: str, build: Build) -> None:
    assert parse_build(text) == build


@pytest.mark.parametrize(
    "bomb",
    [
        "(" * 60_000,
        "[" * 39 + "-" * 60_000 + "1",
        "a" + ".b" * 30_000,
        "a" + "()" * 30_000,
        "a" + "[0]" * 20_000,
        "1" + "+1" * 30_000,
        "not " * 15_000 + "1",
        "not \\\n" * 10_000 + "1",
        "lambda:" * 9_000 + "1",
        "lambda x,y:" * 5_000 + "1",
        "1 if 1 else " * 5_000 + "1",
        "if 1:" * 9_000 + "1",
        "if 1:\n 1\n" + "elif 1:\n 1\n" * 5_000,
        "CONFIG = 0\n" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_no_text_however_deep_brings_the_parser_down(bomb: str) -> None:
    assert parse_build(bomb) == Build()


@pytest.mark.parametrize("before", ["[" * 45 + "]" * 45, "x = 1" + "+1" * 900], ids=["brackets", "words"])
def test_text_that_is_deeper_than_numpys_ever_is_is_not_even_parsed(before: str) -> None:
    assert parse_build(MESON).name == "mkl-sdl"
    assert parse_build(f"{before}\n{MESON}") == Build()


def test_numpys_configuration_is_read_from_its_file_and_from_no_fifo(tmp_path: Path) -> None:
    place = venv(tmp_path, "/srv/app")
    host = Host(str(tmp_path))
    put(place, "numpy/__config__.py", MESON)
    assert read_build(host, mounts(), "/srv/app/lib/python3.11/site-packages").version == "2024.2.2"
    (place / "numpy/__config__.py").unlink()
    os.mkfifo(place / "numpy/__config__.py")
    assert read_build(host, mounts(), "/srv/app/lib/python3.11/site-packages") == Build()
    assert read_build(host, mounts(), "/srv/nowhere") == Build()


def test_roots_come_in_the_order_of_trust(tmp_path: Path) -> None:
    accounts(tmp_path, alice="/home/alice", backup="/var/backups")
    roots = find_roots(Host(str(tmp_path)), mounts(), ("/data",))
    assert roots.index("/opt") < roots.index("/data") < roots.index("/root") < roots.index("/home/alice")
    assert roots.index("/home/alice") < roots.index("/home")
