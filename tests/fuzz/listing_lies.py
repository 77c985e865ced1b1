"""Lies in the names of files that a directory lists, and in records under new checksums."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import monolith_writer

from fuzz.cases import Case
from fuzz.damage import INTERESTING, damage
from fuzz.names import HOSTILE

_LONGEST = 200  # bytes of a file's name, of 255


def lie_in_listing(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """A file gets another name: a hostile one, or another number, and may keep its own besides."""
    path = rng.choice(sorted(case.files))
    folder, _, name = path.rpartition("/")
    made = _numbered(rng, name) if rng.random() < 0.5 else _hostile(rng, name)
    if made is None or made in ("", ".", "..", name):
        return None
    files = dict(case.files)
    content = files[path] if rng.random() < 0.3 else files.pop(path)
    lied = f"{folder}/{made}" if folder else made
    if any(other.startswith(f"{lied}/") for other in files):
        return None  # there is a folder of that name
    files[lied] = content
    target = lied if case.target == path else case.target
    return replace(
        case, files=files, target=target, note=f"{path} as {made[:60]!r}", same=frozenset()
    )


def _hostile(rng: Random, name: str) -> str:
    """In front of what tells what a file is, or behind it."""
    text = rng.choice(HOSTILE).replace("/", "_").replace("\0", "")
    text = text.encode(errors="ignore")[:_LONGEST].decode(errors="ignore")
    cut = rng.choice([0, *(found.start() for found in re.finditer(r"[._-]", name)), len(name)])
    made = text + name[cut:] if rng.random() < 0.7 else name[:cut] + text
    return made.encode()[:_LONGEST].decode(errors="ignore")


def _numbered(rng: Random, name: str) -> str | None:
    numbers = [*re.finditer(r"\d+", name)]
    if not numbers:
        return None
    number = rng.choice(numbers)
    other = rng.choice([*map(str, INTERESTING), "9" * 150, "00", "\u0663", "-1"])
    if rng.random() < 0.5:
        other = other.rjust(len(number[0]), "0")
    return name[: number.start()] + other + name[number.end() :]


def lie_in_framed(rng: Random, case: Case, _: Sequence[Case]) -> Case | None:
    """Damages a record of a file of records, and gives it a checksum again."""
    found = {
        path: records for path in sorted(case.files) if (records := _records(case.files[path]))
    }
    if not found:
        return None
    path = rng.choice(sorted(found))
    records = found[path]
    at = rng.randrange(len(records))
    kind = rng.choice(("damage", "damage", "damage", "twice", "drop"))
    if kind == "damage":
        records[at] = damage(rng, records[at])
    elif kind == "twice":
        records.insert(at, records[at])
    else:
        del records[at]
    return case.with_file(path, b"".join(map(monolith_writer.record, records)), f"{kind} a record")


def _records(data: bytes) -> list[bytes]:
    """What stands in its frames; nothing, if it is no such file."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        content = data[at + 12 : at + 12 + size]
        if data[at : at + 16 + size] != monolith_writer.record(content):
            return []
        found.append(content)
        at += 16 + size
    return found
