"""Compile and import gsplat's CUDA code with one combination of Python, torch, compiler and architectures.

    python benchmarks/gsplat_builds.py --python python3.12 --torch torch==2.13.0 --compiler pypi --archs '8.0;8.9;9.0' \
        --record docs/reports/gpu-builds.json
    # Write the page's table:
    python benchmarks/gsplat_builds.py --table docs/reports/gpu.md --record docs/reports/gpu-builds.json

Creates a fresh environment, compiles in it as ``sdi-gs doctor --build`` does, and imports the result; no card is
needed. ``--compiler pypi`` uses NVIDIA's Python packages, ``system`` an installed toolkit. ``--record`` adds the result
to a file and replaces that of the same combination. The last line printed is one JSON object. A CUDA torch takes some
GB of disk; the environment is deleted unless ``--keep`` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GSPLAT = ["gsplat==1.5.3"]
NEEDED = ["ninja", "numpy", "jaxtyping", "rich", "packaging", "setuptools"]
"""Packages that gsplat and the build import."""
PYPI_COMPILER = {"12": "nvidia-cuda-nvcc-cu12=={cuda}.*", "13": "cuda-toolkit[nvcc,crt,nvvm,cccl]=={cuda}.*"}
"""Compiler packages by CUDA's major version; torch for CUDA 13 pins cuda-toolkit, whose extras hold the compiler."""
MARKS = ("<!-- builds: benchmarks/gsplat_builds.py -->", "<!-- end of builds -->")
KEY = ("python", "torch", "compiler", "archs")

BUILD = """
import json, sys
from dataclasses import replace
from sdi_gs.gsplat_build.build import build_gsplat, plan_build
from sdi_gs.gsplat_build.toolchain import examine_toolchain
from sdi_gs.errors import UserError

compiler, archs = sys.argv[1:]
facts = examine_toolchain()
kits = tuple(kit for kit in facts.toolkits if (kit.source == "PyPI") == (compiler == "pypi"))
facts = replace(facts, toolkits=kits)
told = {"torch": facts.torch, "cuda": facts.torch_cuda, "python": facts.python, "gsplat": facts.gsplat,
        "host_compiler": facts.host_compiler, "nvcc": facts.toolkit.release if facts.toolkit else None}
try:
    built = build_gsplat(plan_build(facts, archs), facts, show=lambda *done: print("files", *done, flush=True))
    told |= {"ok": True} | built.as_json()
    told = {name: value for name, value in told.items() if name not in ("library", "compiler")}
except UserError as error:
    told |= {"ok": False, "error": str(error)}
print(json.dumps(told))
"""


def try_combination(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Create the environment, compile in it, and return the result."""
    environment = folder / "environment"
    python = environment / "bin/python"
    if not python.exists():
        run([arguments.python, "-m", "venv", str(environment)])
        run([str(python), "-m", "pip", "install", "-q", arguments.torch, *NEEDED])
        run([str(python), "-m", "pip", "install", "-q", "--no-deps", *GSPLAT])
    cuda = run([str(python), "-c", "import torch; print(torch.version.cuda)"]).strip()
    if arguments.compiler == "pypi" and cuda != "None":
        run([str(python), "-m", "pip", "install", "-q", PYPI_COMPILER[cuda.partition(".")[0]].format(cuda=cuda)])
    settings = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    said = run([str(python), "-c", BUILD, arguments.compiler, arguments.archs], settings)
    told = json.loads(said.splitlines()[-1])
    if not told["ok"]:
        # Without the path of the output on this machine.
        told["error"] = told["error"].partition(" (their output")[0]
    return {"compiler": arguments.compiler, "archs": arguments.archs.split(";")} | told


def table(builds: list[dict[str, Any]]) -> str:
    """Format the results for the page."""
    lines = [
        "| Python | torch | nvcc | from | g++ | for | result | wall | CPU | largest compiler |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in builds:
        took = ["", "", ""]
        if one["ok"]:
            took = [f"{one[name] / 60:.0f} min" for name in ("seconds", "cpu_seconds")]
            took.append(f"{one['peak_mib_of_a_compiler']} MiB")
        result = f"{len(one['symbols'])} symbols import" if one["ok"] else one["error"].replace("|", "/")
        made_with = [one["nvcc"] or "none", one["compiler"], one["host_compiler"], ", ".join(one["archs"])]
        lines.append(f"| {' | '.join([one['python'], one['torch'], *made_with, result, *took])} |")
    return "\n".join(lines)


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return a program's output; its errors go to the screen."""
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def record(result: dict[str, Any], file: Path) -> None:
    """Add a result to the others; replaces one of the same combination."""
    builds = json.loads(file.read_text())["builds"] if file.exists() else []
    builds = [other for other in builds if any(other[name] != result[name] for name in KEY)]
    builds = sorted([*builds, result], key=lambda one: (one["torch"], one["python"], one["compiler"], one["archs"]))
    file.write_text(f"{json.dumps({'builds': builds}, indent=1)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="python3", help="the interpreter to make the environment with")
    parser.add_argument("--torch", default="torch", help="pip's requirement")
    parser.add_argument("--compiler", choices=["system", "pypi"], default="pypi")
    parser.add_argument("--archs", default="8.0;8.9;9.0")
    parser.add_argument("--folder", type=Path, help="where to make the environment, or where one is already")
    parser.add_argument("--keep", action="store_true", help="leave the environment in --folder")
    parser.add_argument("--record", type=Path, help="the file that collects results")
    parser.add_argument("--table", type=Path, help="compile nothing: write the table of all results into this page")
    arguments = parser.parse_args()
    if arguments.table is not None:
        from gallery import insert_table

        insert_table(arguments.table, table(json.loads(arguments.record.read_text())["builds"]), MARKS)
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="gsplat-build-"))
    folder = folder.resolve()
    try:
        result = try_combination(arguments, folder)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.record is not None:
        record(result, arguments.record)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
