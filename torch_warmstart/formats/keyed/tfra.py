"""Folders that TFRA's `save_to_file_system` writes: keys and values of a table, raw.

dynamic_embedding_variable.py (1002, `save_to_file_system`): `<table>_mht_<i>of<n>_rank<r>_size<s>`
for device i of n, from 1, on process r of s, from 0; a table that is saved by itself has no rank,
and whoever names files has none of it. core/kernels/cuckoo_hashtable_op.cc
(`SaveToFileSystemImpl`): `-keys` and `-values` behind it, each what lies in memory, little-endian,
in one order. No file says which types these are, and from other types other rows would be read:
they must be said.

A key that is text lies there as a `tstring` does (tensorflow/core/platform/ctstring_internal.h): 24
bytes, of which the first has the length in its higher six bits and the kind in its lower two; up to
22 bytes follow it. Of a longer text it is an address, and the text is nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import (
    CorruptCheckpointError,
    SettingsError,
    UnsupportedError,
    printable,
)
from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.keyed.folders import NOT_SAID, Files, FolderCheckpoint, Types
from torch_warmstart.formats.keyed.names import MOST_PARTS, PART_OF_TFRA, slots_by_table
from torch_warmstart.formats.keyed.table import KeyedTable
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import NO_TFRA, TFRA_KEYS

_VALUES = "-values"
_PART = re.compile(PART_OF_TFRA + r"(_rank(?P<rank>[0-9]{1,9})_size(?P<size>[0-9]{1,9}))?")
# In TensorFlow's words, and in torch's.
_OF_KEYS = {"int32": torch.int32, "int64": torch.int64, "string": torch.uint8}
_TEXT, _MOST_TEXT, _KIND = 24, 22, 3  # bytes of a key, of its text; the bits of its kind
_OF_VALUES = {
    "float": torch.float32,
    "float32": torch.float32,
    "half": torch.float16,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "double": torch.float64,
    "float64": torch.float64,
    "int8": torch.int8,
    "int32": torch.int32,
    "int64": torch.int64,
}
_ENTRY = "entry='keys=int64,values=float'"


def sniff(place: Place) -> str | None:
    """Whether a directory holds keys with values beside them."""
    return None if _stems(place) else NO_TFRA


def open_place(place: Place) -> TfraFolder:
    """All tables in a folder, of the types that `entry` says.

    Raises:
        SettingsError: the types are not said, or are none of TFRA's.
        CorruptCheckpointError: a part of a table is missing, or its lengths do not fit the types.
    """
    stems = _stems(place)
    if not stems:
        raise CorruptCheckpointError(f"{place.url}: {sniff(place)}.")
    types, dim = _types(place)
    try:
        tables = dict(_tables(stems))
    except MalformedError as error:
        raise CorruptCheckpointError(f"{place.url}: {error}.") from error
    opened = TfraFolder(place.url, place.storage, "TFRA folder", tables, types)
    for name in tables:
        opened.check_dim(name, dim)
    return opened


class TfraFolder(FolderCheckpoint):
    """Tables, and the tables of their slots, by name."""

    say_width = "say it in entry, which ends in ',dim=16' then"

    def _widths_beside(self, widths: Mapping[str, int]) -> Mapping[str, int]:
        """A table and its slots have rows of one width, where all of them that have rows do."""
        found = {}
        for name, slots in slots_by_table(widths).items():
            group = (name, *slots.values())
            of_others = {widths[one] for one in group} - {NOT_SAID}
            if len(of_others) == 1:
                found.update(dict.fromkeys(group, *of_others))
        return found

    def check_dim(self, name: str, dim: int | None) -> None:
        """Raises CorruptCheckpointError: the rows of a table are not as long as is said."""
        found = self.spec(name).shape
        if dim is not None and found[0] and found[1] != dim:
            raise CorruptCheckpointError(
                f"{self.url}: with these types a row of table {name!r} has {found[1]} numbers, not "
                f"{dim} as entry says."
            )

    def _keys_in(self, file: str) -> Any:
        return _texts_in(super()._keys_in(file)) if self._types.text else super()._keys_in(file)

    def _with_slots(self, tables: Mapping[str, KeyedTable]) -> Mapping[str, KeyedTable]:
        return {
            name: replace(tables[name], slots={slot: tables[of] for slot, of in slots.items()})
            for name, slots in slots_by_table(tables).items()
        }


def _texts_in(raw: torch.Tensor) -> list[bytes]:
    """The keys that lie there, 24 bytes each."""
    rows = raw.numpy().reshape(-1, _TEXT)
    sizes = rows[:, 0] >> 2
    if ((rows[:, 0] & _KIND) != 0).any():
        raise UnsupportedError(
            f"It has text keys of more than {_MOST_TEXT} bytes, of which save_to_file_system "
            "writes where they were in memory, and not what they are. Save the table in a "
            "checkpoint of TensorFlow's."
        )
    there = np.arange(_TEXT - 1) < sizes[:, None]
    texts = np.where(there, rows[:, 1:], 0).astype(np.uint8).view(f"S{_TEXT - 1}")[:, 0]
    if (sizes > _MOST_TEXT).any() or (np.char.str_len(texts) != sizes).any():
        raise MalformedError("a key is longer than its place, or ends in a zero byte")
    found: list[bytes] = texts.tolist()
    return found


def _stems(place: Place) -> list[str]:
    """What is before `-keys` and `-values`."""
    there = set(place.names)
    stems = (name.removesuffix(TFRA_KEYS) for name in place.names if name.endswith(TFRA_KEYS))
    return sorted(stem for stem in stems if stem and _is_of(stem, there))


def _is_of(stem: str, there: set[str]) -> bool:
    """A part without its values is one that is damaged, if its name says that it is one."""
    return stem + _VALUES in there or _PART.fullmatch(stem) is not None


def _types(place: Place) -> tuple[Types, int | None]:
    """`keys=int64,values=float,dim=16`, the last if one likes."""
    said = dict(_pairs(place))
    keys, values, dim = said.get("keys", ""), said.get("values", ""), said.get("dim")
    for word, known, name in ((keys, _OF_KEYS, "keys"), (values, _OF_VALUES, "values")):
        if word not in known:
            what = f"{name}={printable(word)}" if word else f"no {name}="
            raise SettingsError(
                f"{place.url} holds raw files of TFRA, which do not say of what types their keys "
                f"and values are. Say both: {_ENTRY}; there was {what}, and {name} are "
                f"{', '.join(known)}."
            )
    width = None if dim is None else _number(dim, place)
    text = _TEXT if keys == "string" else 0
    return Types(_OF_KEYS[keys], _OF_VALUES[values], width or NOT_SAID, text), width


def _pairs(place: Place) -> Iterator[tuple[str, str]]:
    known = {"keys", "values", "dim"}
    for pair in filter(None, (place.entry or "").replace(" ", "").split(",")):
        name, _, value = pair.partition("=")
        if name in known:
            known.remove(name)  # it is said once
        else:
            raise SettingsError(
                f"entry={place.entry!r} says {printable(name)!r} of {place.url}; it says keys, "
                f"values and dim, once each: {_ENTRY}."
            )
        yield name, value


def _number(dim: str, place: Place) -> int:
    if not dim.isascii() or not dim.isdigit() or not int(dim[:9]) or len(dim) > 9:
        raise SettingsError(f"dim={printable(dim)} of {place.url} is no number of columns.")
    return int(dim)


def _tables(stems: list[str]) -> Iterator[tuple[str, list[Files]]]:
    """The tables by name, each with its parts in order; MalformedError if one is missing."""
    worlds: dict[str, dict[tuple[int, int], dict[tuple[int, int], str]]] = {}
    for stem in stems:
        told = _PART.fullmatch(stem)
        name = told["table"] if told else stem
        rank, size = (int(told["rank"] or 0), int(told["size"] or 1)) if told else (0, 1)
        number, count = (int(told["number"]), int(told["count"])) if told else (1, 1)
        if not 0 <= rank < size or not 1 <= number <= count or size * count > MOST_PARTS:
            raise MalformedError(f"{stem!r} is part {number} of {count}, rank {rank} of {size}")
        parts = worlds.setdefault(name, {}).setdefault((size, count), {})
        if parts.setdefault((rank, number), stem) != stem:
            raise MalformedError(f"part {number} of table {name!r}, rank {rank}, is there twice")
    for name, saves in worlds.items():
        if len(saves) != 1:
            raise MalformedError(
                f"the files of table {name!r} are of several saves, of other numbers of parts; "
                "keep those of one"
            )
        ((world, parts),) = saves.items()
        yield name, list(_whole(name, parts, *world))


def _whole(
    name: str, parts: Mapping[tuple[int, int], str], size: int, count: int
) -> Iterator[Files]:
    for rank in range(size):
        for number in range(1, count + 1):
            if (rank, number) not in parts:
                raise MalformedError(
                    f"of table {name!r} part {number} of {count} of rank {rank} is missing"
                )
            stem = parts[rank, number]
            yield Files(stem + TFRA_KEYS, {"values": stem + _VALUES})
