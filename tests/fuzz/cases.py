"""One input of the fuzzer: a few files, the one to open, and what must still be true of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

_MANIFEST = "case.json"
_FILES = "files"


@dataclass(frozen=True)
class Case:
    """A folder of files by relative path.

    Attributes:
        format: The row of `seeds.SEEDS` it belongs to.
        seed: The name of the seed it was made from.
        target: What to open, relative to the folder; "" is the folder itself.
        files: Contents by path.
        note: What was done to the seed.
        same: Keys whose tensors, if they can be read at all, must read as the seed's. None: every
            key, and there may be no others.
    """

    format: str
    seed: str
    target: str
    files: Mapping[str, bytes] = field(repr=False)
    note: str = "as it is"
    same: frozenset[str] | None = frozenset()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def with_file(self, path: str, data: bytes, note: str) -> Case:
        """The case with another content of one file; nothing is known of its values any more."""
        files = {**self.files, path: data}
        return replace(self, files=files, note=f"{path}: {note}", same=frozenset())


def write_files(case: Case, folder: Path) -> str:
    """Makes `folder` hold exactly the files of a case; returns what to open."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, data in case.files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return str(folder / case.target) if case.target else str(folder)


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def save(case: Case, folder: Path) -> None:
    """Writes a case into the corpus."""
    write_files(replace(case, target=""), folder / _FILES)
    manifest = {
        "note": case.note,
        "format": case.format,
        "seed": case.seed,
        "target": case.target,
        "same": None if case.same is None else sorted(case.same),
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def load(folder: Path) -> Case:
    """Reads a case of the corpus."""
    manifest = json.loads((folder / _MANIFEST).read_text())
    same = manifest.pop("same")
    files = read_files(folder / _FILES)
    return Case(files=files, same=None if same is None else frozenset(same), **manifest)
