"""Write the npm package: build_npm.py LIBRARY OUTPUT_FOLDER

Needs `npm`, and no network.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from library import ROOT, system_of, version

SOURCES = ROOT / "packaging" / "npm"


def build(library: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    with tempfile.TemporaryDirectory() as stage:
        for file in ["index.js", "index.d.ts", "README.md"]:
            shutil.copy(SOURCES / file, stage)
        for file in ["LICENSE-MIT", "LICENSE-APACHE"]:
            shutil.copy(ROOT / file, stage)
        shutil.copy(library, pathlib.Path(stage, "libwalqueue.so"))
        package = json.loads((SOURCES / "package.json").read_text())
        package["version"] = version()
        package["cpu"] = [{"x86_64": "x64", "aarch64": "arm64"}[system_of(library).machine]]
        pathlib.Path(stage, "package.json").write_text(json.dumps(package, indent=2) + "\n")
        command = ["npm", "pack", "--offline", "--json", "--pack-destination", str(folder.resolve())]
        packed = subprocess.run(command, cwd=stage, check=True, stdout=subprocess.PIPE)
    return folder / json.loads(packed.stdout)[0]["filename"]


if __name__ == "__main__":
    output = pathlib.Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    print(build(pathlib.Path(sys.argv[1]), output))
