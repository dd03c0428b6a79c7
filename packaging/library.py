"""What the packages declare of the library: its version, and where it can be loaded."""

import pathlib
import re
import subprocess
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent


class System(typing.NamedTuple):
    """The processor that a library was built for, and the oldest glibc that it can use."""

    machine: str
    glibc: typing.Tuple[int, int]


def version() -> str:
    """The version of the workspace."""
    manifest = (ROOT / "Cargo.toml").read_text()
    found = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', manifest, re.M)
    if found is None:
        raise SystemExit("Cargo.toml: [workspace.package] does not begin with a version")
    return found[1]


def system_of(library: pathlib.Path) -> System:
    """The system on which `library` can be loaded."""
    machines = {"Advanced Micro Devices X86-64": "x86_64", "AArch64": "aarch64"}
    machine = re.search(r"Machine:\s+(.*?)\s*$", _readelf("--file-header", library), re.M)
    if machine is None or machine[1] not in machines:
        raise SystemExit(f"{library}: not a library for x86-64 or AArch64; no package is made")
    needed = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", _readelf("--version-info", library))
    if not needed:
        raise SystemExit(f"{library}: not linked with glibc; no package is made")
    glibc = max((int(major), int(minor)) for major, minor in needed)
    return System(machines[machine[1]], glibc)


def _readelf(option: str, library: pathlib.Path) -> str:
    # `env`, since readelf translates what it prints.
    command = ["env", "LC_ALL=C", "readelf", "--wide", option, str(library)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
