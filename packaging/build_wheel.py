"""Write the Python wheel: build_wheel.py LIBRARY OUTPUT_FOLDER

Needs the standard library alone. The same inputs give the same bytes.
"""

import base64
import hashlib
import pathlib
import sys
import typing
import zipfile

from library import ROOT, system_of, version

NAME = "sqlite_walqueue"
SOURCES = ROOT / "packaging" / "python"
INFO = f"{NAME}-{version()}.dist-info"


def metadata() -> str:
    return f"""Metadata-Version: 2.1
Name: sqlite-walqueue
Version: {version()}
Summary: Writers of a SQLite database wait in one fair queue, over all processes
License: MIT OR Apache-2.0
Requires-Python: >=3.8
Classifier: Operating System :: POSIX :: Linux
Classifier: Topic :: Database
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

{(SOURCES / "README.md").read_text()}"""


def contents(library: pathlib.Path, tag: str) -> typing.Dict[str, bytes]:
    """The files of the wheel, except for RECORD, which lists them."""
    wheel = f"Wheel-Version: 1.0\nGenerator: build_wheel\nRoot-Is-Purelib: false\nTag: {tag}\n"
    return {
        f"{NAME}/__init__.py": (SOURCES / NAME / "__init__.py").read_bytes(),
        f"{NAME}/py.typed": b"",
        f"{NAME}/libwalqueue.so": library.read_bytes(),
        f"{INFO}/LICENSE-MIT": (ROOT / "LICENSE-MIT").read_bytes(),
        f"{INFO}/LICENSE-APACHE": (ROOT / "LICENSE-APACHE").read_bytes(),
        f"{INFO}/METADATA": metadata().encode(),
        f"{INFO}/WHEEL": wheel.encode(),
    }


def line_of_record(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def build(library: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    machine, (major, minor) = system_of(library)
    tag = f"py3-none-manylinux_{major}_{minor}_{machine}"
    files = contents(library, tag)
    lines = [line_of_record(name, data) for name, data in files.items()]
    record = f"{INFO}/RECORD"
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    wheel = folder / f"{NAME}-{version()}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


if __name__ == "__main__":
    output = pathlib.Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    print(build(pathlib.Path(sys.argv[1]), output))
