"""Folders of NVIDIA's dynamicemb: a table's columns in raw files, as many of each as ranks.

batched_dynamicemb_tables.py: `<table>_emb_keys.rank_<r>.world_size_<w>` int64, `_emb_values`
float32 [N, dim], `_emb_scores` int64 [N] or [N, words], `_emb_opt_values` float32 [N, any]; which
rank has a key is a rule (key_ownership.py): `roundrobin` by the key itself, `hash_roundrobin` by
its hash, both without a sign. `<table>_opt_args.json` has what the optimizer was made with, and of
Adam `iters`, `beta1` and `beta2` (optimizer.py, `get_opt_args`); of Adam's values, twice as wide as
the rows, the first half is m and the second v (src/optimizer_kernel.cuh: `v_ptr = m_ptr + dim`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.errors import CorruptCheckpointError, shown_entry
from torch_warmstart.formats.base import Block, MalformedError, TensorLocation, TensorSpec
from torch_warmstart.formats.keyed.folders import (
    OPT_VALUES,
    Files,
    FolderCheckpoint,
    check_files,
)
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import NO_DYNAMICEMB

if TYPE_CHECKING:
    from torch_warmstart.formats.keyed.table import KeyedTable

_Bits = npt.NDArray[np.uint64]
_FILE = re.compile(
    r"(?P<table>.+)_emb_(?P<column>keys|values|scores|opt_values)"
    r"\.rank_(?P<rank>0|[1-9][0-9]{0,8})\.world_size_(?P<size>[1-9][0-9]{0,8})"
)
_ARGS = "_opt_args.json"
_MOST_ARGS = 1 << 20  # bytes of one
_MOST_RANKS = 100_000
_MOST_STEPS = 1 << 48
_HALVES = ("exp_avg", "exp_avg_sq")  # in torch's words
_STEP = "step"


def sniff(place: Place) -> str | None:
    """Whether a directory holds keys of a rank."""
    found = any(m["column"] == "keys" for m in map(_FILE.fullmatch, place.names) if m)
    return None if found else NO_DYNAMICEMB


def open_place(place: Place) -> DynamicembFolder:
    """All tables in a folder.

    Raises CorruptCheckpointError: a rank's file is missing.
    """
    check_files(place, sniff(place))
    found: dict[str, dict[int, dict[str, str]]] = {}
    sizes: dict[str, set[int]] = {}
    for name in place.names:
        told = _FILE.fullmatch(name)
        if told:
            of_rank = found.setdefault(told["table"], {}).setdefault(int(told["rank"]), {})
            of_rank[told["column"]] = name
            sizes.setdefault(told["table"], set()).add(int(told["size"]))
    try:
        tables = {name: _of_ranks(name, ranks, sizes[name]) for name, ranks in found.items()}
    except MalformedError as error:
        raise CorruptCheckpointError(f"{place.url}: {error}.") from error
    args = {name: name + _ARGS for name in tables if name + _ARGS in place.names}
    return DynamicembFolder(place, tables, args)


def _of_ranks(name: str, ranks: Mapping[int, Mapping[str, str]], sizes: set[int]) -> list[Files]:
    size = max(sizes)
    if len(sizes) != 1 or size > _MOST_RANKS:
        raise MalformedError(f"the files of table {name!r} are of several worlds: {sorted(sizes)}")
    if max(ranks) >= size:
        raise MalformedError(f"table {name!r} has files of rank {max(ranks)} of {size}, from 0")
    words = set().union(*ranks.values()) | {"keys", "values"}
    for rank in range(size):
        for word in sorted(words):
            if word not in ranks.get(rank, {}):
                raise MalformedError(f"of table {name!r} the {word} of rank {rank} are missing")
    owners = _Owners(size)
    return [
        Files(
            ranks[rank]["keys"],
            {word: file for word, file in ranks[rank].items() if word != "keys"},
            functools.partial(owners.check, rank=rank),
        )
        for rank in range(size)
    ]


class _Owners:
    """Which rank has a key: by one of the rules, and by one only for all ranks of a table."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rules: list[Callable[[_Bits], _Bits]] = [_hashed, _as_it_is]

    def check(self, keys: torch.Tensor, rank: int) -> None:
        """Raises MalformedError: keys of a rank are another's."""
        bits, size = keys.numpy().view(np.uint64), np.uint64(self._size)
        are_wrong = [rule(bits) % size != rank for rule in self._rules]
        kept = [r for r, wrong in zip(self._rules, are_wrong, strict=True) if not wrong.any()]
        if not kept:
            key = int(keys[int(are_wrong[-1].argmax())])
            raise MalformedError(
                f"key {shown_entry(key)} is in the file of rank {rank} of {self._size}"
            )
        self._rules = kept


def _as_it_is(bits: _Bits) -> _Bits:
    return bits


def _hashed(bits: _Bits) -> _Bits:
    """What ends MurmurHash3 of 64 bits."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        bits = (bits ^ (bits >> np.uint64(33))) * np.uint64(factor)
    mixed: _Bits = bits ^ (bits >> np.uint64(33))
    return mixed


class DynamicembFolder(FolderCheckpoint):
    """Tables by name; of Adam's state `t/exp_avg`, `t/exp_avg_sq` and `t/step` besides."""

    def __init__(
        self, place: Place, tables: Mapping[str, Sequence[Files]], args: Mapping[str, str]
    ) -> None:
        """`args` has the file of the optimizer's arguments of tables that have one."""
        super().__init__(place.url, place.storage, "dynamicemb folder", tables)
        self._args = args

    @functools.cached_property
    def _steps(self) -> Mapping[str, int]:
        """The tables that Adam trained, and how many steps it took."""
        found = {}
        for name, file in self._args.items():
            values, rows = self._runs.get(f"{name}/{OPT_VALUES}"), self._runs[name]
            told = self._told(file)
            is_adam = {"iters", "beta1", "beta2"} <= told.keys()
            if is_adam and values is not None and values[0][2] == 2 * rows[0][2]:
                found[name] = told["iters"]
                if type(told["iters"]) is not int or not 0 <= told["iters"] <= _MOST_STEPS:
                    raise CorruptCheckpointError(f"{self.url}: {file} has no number of steps.")
        return found

    def _told(self, file: str) -> dict[str, Any]:
        source = self._source(file)
        if source.size > _MOST_ARGS:
            raise CorruptCheckpointError(f"{self.url}: {file} has {source.size:,} bytes.")
        try:
            told = json.loads(source.read(0, source.size).tobytes())
        except (ValueError, RecursionError) as error:
            raise CorruptCheckpointError(f"{self.url}: {file} is damaged.") from error
        return told if isinstance(told, dict) else {}

    def _half(self, key: str) -> tuple[str, int] | None:
        """Whose half a key is of, and which one; None: it is none."""
        name, _, leaf = key.rpartition("/")
        return (name, _HALVES.index(leaf)) if leaf in _HALVES and name in self._steps else None

    def _with_slots(self, tables: Mapping[str, KeyedTable]) -> Mapping[str, KeyedTable]:
        return {
            name: replace(
                table,
                slots={**table.slots, **{leaf: self._half_table(table, leaf) for leaf in _HALVES}},
            )
            if name in self._steps
            else table
            for name, table in tables.items()
        }

    def _half_table(self, table: KeyedTable, leaf: str) -> KeyedTable:
        key = f"{table.name}/{leaf}"
        return replace(table, name=key, values=key, slots={})

    # -- the values --------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        for name in self._steps:
            yield from (f"{name}/{leaf}" for leaf in (*_HALVES, _STEP))

    def _find(self, key: str) -> TensorSpec | None:
        name, _, leaf = key.rpartition("/")
        if leaf == _STEP and name in self._steps:
            return TensorSpec(key, (), torch.int64, "int64")
        half = self._half(key)
        return super()._find(key) if half is None else replace(self.spec(half[0]), key=key)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        if not spec.shape:
            return torch.tensor(self._steps[spec.key.rpartition("/")[0]])
        half = self._half(spec.key)
        if half is None:
            return super()._read(spec, rows)
        return self._cut(super()._read(self._whole(half[0]), rows), half[1])

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        half = self._half(spec.key)
        if half is None:
            return super()._row_blocks(spec, rows)
        blocks = super()._row_blocks(self._whole(half[0]), rows)
        return [(first, self._cut(block, half[1])) for first, block in blocks]

    def _whole(self, name: str) -> TensorSpec:
        return self.spec(f"{name}/{OPT_VALUES}")

    def _cut(self, values: torch.Tensor, half: int) -> torch.Tensor:
        return values.chunk(2, dim=1)[half].contiguous()

    def location(self, key: str) -> TensorLocation:
        name, _, leaf = self.spec(key).key.rpartition("/")
        if leaf == _STEP and name in self._steps:
            return TensorLocation((self._args[name],))
        half = self._half(self.spec(key).key)
        return super().location(key if half is None else f"{name}/{OPT_VALUES}")
