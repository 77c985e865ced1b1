"""Installs the built wheel under other Pythons, and under the oldest libraries that it allows.

    python tests/packaging/try_wheel.py python3.10 python3.13     # `make wheels`
    python tests/packaging/try_wheel.py --oldest python3.10       # `make oldest`

For each Python: an environment of its own, the wheel and what it requires, the README's first
program, the command line, and the tests below `FOLDERS` whose own imports are there. Environments
are large and go when they are done. Where torch's wheels lie on a disk: PIP_FIND_LINKS=DIRECTORY.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = ("cli", "consumer", "display", "vocabularies", "planning", "execution")
# What most of these tests need; those that need another library are skipped.
TOOLS = ("pytest", "hypothesis", "safetensors", "h5py", "pyarrow", "pandas")
# Lower bounds of pyproject.toml; versions of torch and numpy that are known to go together.
OLDEST = (
    "torch==2.6.0",
    "numpy==1.26.4",
    "fsspec==2023.10.0",
    "google-crc32c==1.5.0",
    "cramjam==2.7.0",
    "rich==13.0.0",
    "h5py==3.8.0",
    "pyarrow==16.0.0",
)
WORKS = """\
import json
import sys
from pathlib import Path

import numpy
import torch

import torch_warmstart

readme, tests, folders = Path(sys.argv[1]).read_text(), Path(sys.argv[2]), sys.argv[3:]
exec(readme.split("```python\\n")[1].split("```")[0])
assert "site-packages" in torch_warmstart.__file__, torch_warmstart.__file__
print("python", sys.version.split()[0], "torch", torch.__version__, "numpy", numpy.__version__)
"""


def main() -> int:
    """Tries the wheel under each Python; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--oldest", action="store_true", help="with the oldest libraries allowed")
    parser.add_argument("--no-tests", action="store_true", help="only what is run at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wheel-") as made:
        built = Path(made)
        _run(sys.executable, "-m", "build", "--wheel", "--outdir", made, str(ROOT), quiet=True)
        (wheel,) = built.glob("*.whl")
        failed = [python for python in options.pythons if not _works(python, wheel, options, built)]
    print(f"{len(options.pythons) - len(failed)} passed, {len(failed)} failed")
    return bool(failed)


def _works(python: str, wheel: Path, options: argparse.Namespace, built: Path) -> bool:
    """Whether the wheel passes under a Python; says what it does."""
    environment = built / "environment"
    try:
        _run(python, "-m", "venv", str(environment))
        inside = str(environment / "bin" / "python")
        pinned = OLDEST if options.oldest else ("--constraint", str(ROOT / "constraints.txt"))
        _run(inside, "-m", "pip", "install", "--quiet", str(wheel), *TOOLS, *pinned)
        _run(inside, "-c", WORKS, str(ROOT / "README.md"), str(ROOT / "tests"), cwd=built)
        _run(str(environment / "bin" / "torch-warmstart"), "--version", cwd=built)
        if options.no_tests:
            return True
        modules = list(_usable(inside))
        pytest = str(environment / "bin" / "pytest")  # `-m pytest` would see the source tree
        _run(pytest, "-q", "-p", "absent_libraries", *modules, cwd=ROOT)
    except subprocess.CalledProcessError as error:
        print(f"{python}: failed at {' '.join(map(str, error.cmd))[:200]}")
        return False
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    return True


def _usable(python: str) -> Iterator[str]:
    """The modules of tests all of whose imports an environment has."""
    modules = [path for folder in FOLDERS for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    needed = {path: set(_imported(path)) for path in sorted(modules)}
    names = sorted(set().union(*needed.values()))
    code = "import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if u.find_spec(n)))"
    found = subprocess.run(
        [python, "-c", code, *names], check=True, capture_output=True, text=True, cwd="/"
    )
    there = {*found.stdout.split(), *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    for path, wanted in needed.items():
        if wanted <= there:
            yield str(path.relative_to(ROOT))
        else:
            print(f"left out: {path.relative_to(ROOT)}, for {', '.join(sorted(wanted - there))}")


def _imported(path: Path) -> Iterator[str]:
    """The names at the beginning of the modules that a module imports at its top."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            yield node.module.partition(".")[0]


def _run(*command: str, cwd: Path | None = None, quiet: bool = False) -> None:
    """Runs a command that sees the installed packages and this folder; raises if it fails."""
    kept = {n: v for n, v in os.environ.items() if not re.fullmatch("PYTHONPATH|VIRTUAL_ENV", n)}
    environment = {**kept, "TORCH_WARMSTART_INSTALLED": "1", "PYTHONPATH": str(HERE)}
    print("$", *(word if len(word) < 60 else word[:57] + "..." for word in command), flush=True)
    out = subprocess.DEVNULL if quiet else None
    subprocess.run(command, check=True, cwd=cwd, env=environment, stdout=out)


if __name__ == "__main__":
    sys.exit(main())
