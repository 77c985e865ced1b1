"""Which files of a folder are whose shards, and which records of them are which table's.

A table is `<name>-%05d-of-%05d`, as many files as it was written by threads (file_utils.cc). One
that holds several tables is compressed, and `<name>.meta-%05d-of-%05d` says how many records of
each it has, in their order (multi_hash_table_save_restore_ops.cc). On several parameter servers a
table is several, `<name>_0`, `<name>_1` and so on, by the remainder of the id (distributed_ps.py);
they are one table more, whose ids are compared with that. What a crash left is called `-tmp-`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.recognise import SHARD, is_numbered
from torch_warmstart.formats.tensorflow.monolith.record_files import Records
from torch_warmstart.formats.tensorflow.wire import (
    BYTES,
    VARINT,
    decode_text,
    last_bytes,
    last_int,
    read_fields,
)
from torch_warmstart.values import frozen

_META = ".meta"
_UNFINISHED = re.compile(r"-tmp-\d+(\.meta)?$")
_SERVER = re.compile(r"(?P<name>.*)_(?P<number>\d{1,5})", re.DOTALL)
_WITHOUT_NUMBER = "MonolithMultiHashTable_"  # what holds several tables, on no server


@frozen
class Part:
    """Records of a table, one behind the other in a file."""

    file: str
    first: int = 0
    count: int = -1  # all there are
    owner: tuple[int, int] | None = None  # remainder and divisor that all ids have


Parts = tuple[Part, ...]


def base_of(name: str) -> str | None:
    """What a file is a shard of; None if it is none."""
    found = SHARD.fullmatch(name) if is_numbered(name) else None
    return None if found is None or _UNFINISHED.search(found["base"]) else found["base"]


def groups_in(names: Iterable[str]) -> dict[str, list[str]]:
    """The shards of each base, in order; MalformedError: one of them is missing."""
    numbered: dict[str, dict[int, str]] = {}
    counts: dict[str, set[int]] = {}
    for name in names:
        base = base_of(name)
        if base is not None:
            found = SHARD.fullmatch(name)
            assert found is not None
            numbered.setdefault(base, {})[int(found["number"])] = name
            counts.setdefault(base, set()).add(int(found["count"]))
    return {base: _whole(base, files, counts[base]) for base, files in sorted(numbered.items())}


def _whole(base: str, files: Mapping[int, str], counts: set[int]) -> list[str]:
    if len(counts) != 1:
        raise MalformedError(f"the files of {base!r} are of {sorted(counts)}: of several saves")
    (count,) = counts
    missing = [number for number in range(count) if number not in files]
    if missing:
        raise MalformedError(f"of {base!r} file {missing[0]} of {count} is missing")
    if len(files) != count:
        raise MalformedError(f"of {base!r} there are files beyond the {count} that they tell of")
    return [files[number] for number in range(count)]


def tables_in(
    groups: Mapping[str, Sequence[str]], read: Callable[[str], Records]
) -> dict[str, Parts]:
    """The parts of every table, by its name.

    Args:
        groups: What `groups_in` finds.
        read: Reads a file of counts.

    Raises MalformedError: a file of counts is missing, or is none.
    """
    single: dict[str, Parts] = {}
    several: dict[str, dict[str, Parts]] = {}
    for base, files in groups.items():
        if base.removesuffix(_META) in groups and base.endswith(_META):
            continue
        metas = groups.get(base + _META)
        if metas is None:
            single[base] = tuple(Part(file) for file in files)
        elif len(metas) != len(files):
            raise MalformedError(f"{base!r} has {len(files)} files, but {len(metas)} of counts")
        else:
            several[base] = _of_several(files, [read(meta) for meta in metas])
    return {**_single(single), **_merged(several)}


def _of_several(files: Sequence[str], metas: Sequence[Records]) -> dict[str, Parts]:
    tables: dict[str, Parts] = {}
    for file, records in zip(files, metas, strict=True):
        first = 0
        for name, count in map(_counted, _values(records)):
            tables[name] = (*tables.get(name, ()), Part(file, first, count))
            first += count
    return tables


def _values(records: Records) -> list[bytes]:
    """Few: one a table."""
    spans = zip(records.starts.tolist(), records.lengths.tolist(), strict=True)
    return [records.data[start : start + length].tobytes() for start, length in spans]


def _counted(record: bytes) -> tuple[str, int]:
    """MultiHashTableMetadata: `table_name` = 1, `num_entries` = 2."""
    fields = read_fields(record, {1: BYTES, 2: VARINT})
    name = last_bytes(fields, 1)
    if name is None:
        raise MalformedError("a count has no table's name")
    return decode_text(name), last_int(fields, 2)


# -- several parameter servers ---------------------------------------------------------------------


def _servers(names: Iterable[str]) -> dict[str, list[str]]:
    """Which names are `name_0`, `name_1`, ...: all numbers from 0 on, and two at least."""
    numbered: dict[str, dict[int, str]] = {}
    for name in names:
        told = _SERVER.fullmatch(name)
        if told and str(int(told["number"])) == told["number"]:
            numbered.setdefault(told["name"], {})[int(told["number"])] = name
    return {
        name: [of[number] for number in range(len(of))]
        for name, of in numbered.items()
        if len(of) > 1 and max(of) == len(of) - 1
    }


def _owned(parts: Parts, number: int, count: int) -> Parts:
    return tuple(replace(part, owner=(number, count)) for part in parts)


def _single(tables: Mapping[str, Parts]) -> dict[str, Parts]:
    found = dict(tables)
    for name, members in _servers(tables).items():
        if name and name not in found:
            numbered = enumerate(members)
            found[name] = sum((_owned(tables[m], i, len(members)) for i, m in numbered), ())
    return found


def _merged(bases: Mapping[str, Mapping[str, Parts]]) -> dict[str, Parts]:
    """By the tables' own names where one base, or one for each server, has them."""
    left, found = dict(bases), dict[str, Parts]()
    of_servers = _servers(bases)
    if len(bases) == 1 or (len(of_servers) == 1 and len(bases) == len(*of_servers.values())):
        members = next(iter(of_servers.values()), list(bases))
        for number, base in enumerate(members):
            for name, parts in left.pop(base).items():
                owned = _owned(parts, number, len(members)) if len(members) > 1 else parts
                found[name] = (*found.get(name, ()), *owned)
    for base, tables in left.items():
        where = "" if base == _WITHOUT_NUMBER else f"{base}/"
        found.update({f"{where}{name}": parts for name, parts in tables.items()})
    return found
