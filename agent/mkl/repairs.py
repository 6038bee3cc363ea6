"""What to do about a broken MKL, as commands in the order in which to try them. Pure: text only, nothing is run."""

from dataclasses import dataclass

from agent.mkl.facts import Alternative, Facts
from agent.mkl.linkage import FILE, GOMP_OF_COMPILER, find, part_of, suffix_of
from agent.mkl.loading import Failure

SERIES = {".so.1": "2021.4", ".so.2": "2025.3", ".so.3": "2026.2"}
"""The last of Intel's releases whose files end so."""
RANGES = {".so": "<2020", ".so.1": ">=2021,<2022", ".so.2": ">=2022,<2026", ".so.3": ">=2026,<2027"}
"""The releases whose files end so, for pip and conda."""
FLAGS = "-Csetup-args=-Dblas=mkl-sdl -Csetup-args=-Dlapack=mkl-sdl"


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing to do. command: what to type; empty where it is advice alone. why: what it is for."""

    command: str
    why: str


def suffix_in(name: str) -> str:
    """Return `.so.2` of libmkl_core.so.2; `.so` where the name does not tell."""
    found = FILE.fullmatch(name.rpartition("/")[2])
    return found["suffix"] if found else ".so"


def bring_back(facts: Facts, name: str) -> Repair:
    """The file `name` again, from whom it came."""
    suffix = suffix_in(name)
    if facts.around.manager:
        return Repair(_install(facts, suffix), f"brings {name} back into this environment")
    if suffix == ".so":
        package = f"libmkl-{part_of(name).replace('_', '-')}" if part_of(name) else "libmkl-rt"
        return Repair(f"apt-get install {package}", f"Debian's package of {name} (in non-free)")
    built = ".".join(facts.around.built.version.split(".")[:2])
    fits = suffix_of_release(built) == suffix
    why = f"Intel's package with {name}; it installs beside newer ones"
    return Repair(_install(facts, suffix, built if fits else ""), why)


def _install(facts: Facts, suffix: str, release: str = "") -> str:
    """Return the command that brings a release whose files end in `suffix`; the last one unless told."""
    wanted = f"=={release}.*" if release else RANGES.get(suffix, "")
    if facts.around.manager == "pip":
        return f"python3 -m pip install 'mkl{wanted}'"
    if facts.around.manager == "conda":
        return f"conda install 'mkl{wanted.removesuffix('.*').replace('==', '=')}'"
    return f"apt-get install intel-oneapi-mkl-core-{release or SERIES.get(suffix, '2025.3')}"


def suffix_of_release(release: str) -> str:
    """Return `.so.2` of 2024.2: how the files of that release end; empty where that is no release."""
    year = release.partition(".")[0]
    if not year.isdigit() or int(year) < 2011:
        return ""
    return ".so" if int(year) < 2021 else ".so.1" if year == "2021" else ".so.2" if int(year) < 2026 else ".so.3"


def rebuild() -> tuple[Repair, ...]:
    """numpy and scipy again, bound to whatever MKL is there, or to none."""
    command = f"python3 -m pip install --force-reinstall --no-cache-dir --no-binary numpy,scipy {FLAGS} numpy scipy"
    wheels = "python3 -m pip install --force-reinstall --only-binary :all: numpy scipy"
    return (
        Repair(command, "or: builds both against libmkl_rt, with the MKL that is installed now"),
        Repair(wheels, "or: takes the wheels, which bring OpenBLAS and need no MKL"),
    )


def link_names(name: str) -> Repair:
    """A word on the symlink that people find on the web."""
    return Repair(
        "", f"a symlink called {name} to a newer release may load, but nobody promises that its numbers are right"
    )


def upgrade_layered(facts: Facts, name: str) -> tuple[Repair, ...]:
    """Kernels that name the core themselves, where the release that has them has the same names of files."""
    if suffix_in(name) != ".so.2":
        return ()
    return (Repair(_install(facts, ".so.2", "2025.3"), "or: a release from 2023.0 on, whose kernels name libmkl_core"),)


def find_package(name: str) -> Repair:
    """A file that is not MKL's."""
    return Repair(
        f"apt-file search {name}", f"tells which package brings {name}; or take the wheels of numpy and scipy"
    )


def stay_below(facts: Facts, name: str) -> Repair:
    """The last release that had the GNU interface, which went without a new file name."""
    return Repair(_install(facts, suffix_in(name), "2026.1"), f"or: a release that has {name}; the last is 2026.1")


def restart() -> Repair:
    """What runs with the old files."""
    return Repair(
        "", "restart what is listed; before that, numpy.test() as the owner of the environment is worth a minute"
    )


def finish_unpacking(facts: Facts) -> tuple[Repair, ...]:
    """Files of several releases lie together: a package run that was cut off, or two at once."""
    if facts.around.manager == "pip":
        command = "python3 -m pip install --force-reinstall --no-deps mkl intel-openmp"
        return (Repair(command, "unpacks one whole release"),)
    if facts.around.manager == "conda":
        return (Repair("conda install --force-reinstall mkl intel-openmp", "unpacks one whole release"),)
    return (
        Repair("dpkg --audit", "shows packages that are half installed"),
        Repair("dpkg --configure -a", "finishes an interrupted run"),
    )


def drop(variable: str, value: str) -> Repair:
    """A variable that must go from the unit or from /etc/environment."""
    where = "from the unit (systemctl edit UNIT: UnsetEnvironment=) or /etc/environment"
    return Repair("", f"take {variable}={value} out: {where}")


def give_openmp(facts: Facts, name: str) -> tuple[Repair, ...]:
    """The OpenMP runtime `name`, or a threading layer that does without."""
    quick = Repair("echo MKL_THREADING_LAYER=SEQUENTIAL >>/etc/environment", "or: does without OpenMP")
    if name == GOMP_OF_COMPILER:
        return (
            Repair(quick.command, "does without OpenMP: this MKL asks for a name that no package has where it looks"),
            Repair("apt-get install libomp-dev", "or: brings libiomp5.so, which it takes instead"),
        )
    if name != "libiomp5.so":
        return Repair("apt-get install libgomp1", f"brings {name}"), quick
    if facts.around.manager == "pip":
        return Repair("python3 -m pip install intel-openmp", f"brings {name} into this environment"), quick
    if facts.around.manager == "conda":
        return Repair("conda install intel-openmp", f"brings {name} into this environment"), quick
    runtime = find(facts.load, "rt")
    gnu = Repair("echo MKL_THREADING_LAYER=GNU >>/etc/environment", "or: takes GCC's OpenMP instead")
    return (
        Repair("apt-get install libomp-dev", f"Debian's {name}"),
        Repair("apt-get install intel-oneapi-openmp", f"or: Intel's own {name}"),
        quick if runtime and suffix_of(runtime) == ".so" else gnu,
    )


def reset_alternatives(alternatives: tuple[Alternative, ...]) -> tuple[Repair, ...]:
    """Debian's own choice again for each."""
    why = "lets Debian choose what is installed"
    return tuple(Repair(f"update-alternatives --auto {item.name}", why) for item in alternatives)


def speak_gnu(facts: Facts) -> tuple[Repair, ...]:
    """Complex results as gfortran returns them, or another BLAS."""
    chosen = tuple(item for item in facts.alternatives if part_of(item.target) == "rt")
    return (
        Repair(
            "echo MKL_INTERFACE_LAYER=GNU,LP64 >>/etc/environment",
            "makes libmkl_rt return complex numbers as this module expects; units need it in Environment= as well",
        ),
        *(Repair(item.command, f"or: {item.why}") for item in reset_alternatives(chosen)),
    )


def tell_linker(directory: str) -> tuple[Repair, ...]:
    """The directory of Intel's files, for ld.so."""
    return (
        Repair(f"echo {directory} >/etc/ld.so.conf.d/mkl.conf", "tells ld.so where the rest of this MKL lies"),
        Repair("ldconfig", "makes that known"),
    )


def put_in_place(facts: Facts, failure: Failure) -> tuple[Repair, ...]:
    """The missing file, and the list of directories that pointed to it."""
    built = facts.around.built.directory
    path = f"the module looks for it in {built} first" if built else "the module's RUNPATH names where it looks first"
    return bring_back(facts, failure.name), Repair("", f"{path}: a directory of another release does not serve")
