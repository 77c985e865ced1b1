"""TorchRec's tables whose modules keep which id has which row, in a state dict or in DCP.

ZCH (torchrec modules/mc_modules.py): `_mch_sorted_raw_ids` int64 [size], sorted, the largest int64
where there is none; `_mch_remapped_ids_mapping` int64 [size], the row of that id;
`_mch_counts`, `_mch_last_access_iter` int64 [size]. The last row is for ids that have none.
Where several ranks had the table, each sorted the ids of its rows and has a last row of its own:
`_output_segments_tensor` int64 [1025] says where each one's begin, and ends in -1.
MPZCH (hash_mc_modules.py): `_hash_zch_identities` int64 [size, 1], -1 where there is none: the row
is the place; `_hash_zch_metadata` int32 [size, 1].
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import replace

import torch

from torch_warmstart.entries import OOV, Entries, Vocabulary
from torch_warmstart.errors import CorruptCheckpointError, printable
from torch_warmstart.formats.base import Checkpoint, MalformedError
from torch_warmstart.formats.keyed.table import Column, KeyedTable

_SORTED, _ROWS = "_mch_sorted_raw_ids", "_mch_remapped_ids_mapping"
_HASHED, _METADATA = "_hash_zch_identities", "_hash_zch_metadata"
_SEGMENTS = "_output_segments_tensor"
_FREQUENCY, _VERSION = "_mch_counts", "_mch_last_access_iter"
_MOST_SEGMENTS = 1024
_MOST_DEPTH = 64  # parts of a path that are compared
_EMPTY = (1 << 63) - 1
_EMPTY_PLACE = -1
_BUFFERS = ("embedding_bags", "embeddings")


def torchrec_tables(checkpoint: Checkpoint) -> dict[str, KeyedTable]:
    """The tables by name, as the module calls them; by their keys where two are called alike."""
    found = [_table(checkpoint, key, leaves) for key, leaves in _leaves_by_weight(checkpoint)]
    names = collections.Counter(table.name for table in found)
    named = {
        table.values.removesuffix(".weight") if names[table.name] > 1 else table.name: table
        for table in found
    }
    return {name: replace(table, name=name) for name, table in named.items()}


def _leaves_by_weight(checkpoint: Checkpoint) -> Iterator[tuple[str, list[str]]]:
    """Weights, and the ids that may be theirs: `..._mch_sorted_raw_ids`, one if it is clear.

    A module has its table and its ids within it, so that of weights of one name the one counts that
    shares most of its path with the ids.
    """
    weights: dict[tuple[str, str], list[str]] = {}  # by the table's name and a path they are in
    for key in checkpoint:
        if name := _table_name(key):
            for path in _paths(key):
                weights.setdefault((name, path), []).append(key)
    groups: dict[tuple[str, str], list[str]] = {}
    for key in checkpoint:
        folder, _, leaf = key.rpartition(".")
        name = folder.rpartition(".")[2]
        if leaf in (_SORTED, _HASHED):
            places = ((name, path) for path in _paths(key))
            nearest = next((place for place in places if place in weights), None)
            if nearest is not None:
                groups.setdefault(nearest, []).append(key)
    found: dict[str, list[str]] = {}
    for place, leaves in groups.items():
        are_clear = len(weights[place]) == len(leaves) == 1
        for weight in weights[place]:
            found.setdefault(weight, []).extend(leaves if are_clear else [leaves[0]] * 2)
    yield from found.items()


def _paths(key: str) -> list[str]:
    """The paths that a key is in, the longest first."""
    parts = key.split(".", _MOST_DEPTH)[:-1]
    return [".".join(parts[:count]) for count in range(len(parts), -1, -1)]


def _table(checkpoint: Checkpoint, values: str, leaves: list[str]) -> KeyedTable:
    folder, _, leaf = leaves[0].rpartition(".")
    name = folder.rpartition(".")[2]
    shape = checkpoint.spec(values).shape
    origin = f"{checkpoint.url}[{name}]"
    reader = _Reader(checkpoint, folder, shape[0] if shape else 0, origin)

    def read_keys() -> Vocabulary:
        if len(leaves) > 1:
            raise CorruptCheckpointError(
                f"{origin}: which ids {values!r} has is not clear: several tables are called "
                f"{printable(name)!r}, or several modules keep ids for it."
            )
        return reader.sorted() if leaf == _SORTED else reader.hashed()

    return KeyedTable(
        name=name,
        values=values,
        shape=shape,
        parts=1,
        origin=origin,
        read_keys=read_keys,
        columns=reader.columns() if leaf == _SORTED else {},
        has_state_by_row=True,
    )


def _table_name(key: str) -> str:
    """The table that a weight is of: `...embedding_bags.t.weight`."""
    *_, kind, name, leaf = ("", "", *key.split("."))
    return name if leaf == "weight" and kind in _BUFFERS else ""


class _Reader:
    """Reads the buffers of a module; CorruptCheckpointError if they do not go together."""

    def __init__(self, checkpoint: Checkpoint, folder: str, rows: int, origin: str) -> None:
        self._checkpoint, self._folder = checkpoint, folder
        self._rows, self._origin = rows, origin

    def sorted(self) -> Vocabulary:
        """ZCH: the ids in order, and the row of each."""
        try:
            ids, rows, starts = self._buffer(_SORTED), self._buffer(_ROWS), self._starts()
            falls = (ids[1:] < ids[:-1]).nonzero().flatten() + 1
            if not bool(torch.isin(falls, starts).all()):
                raise MalformedError("its ids are not sorted")
            there = ids != _EMPTY
            self._check_segments(rows, there, starts)
            last = {OOV: range(self._rows - 1, self._rows)} if len(starts) == 1 else {}
            return self._placed(ids[there], rows[there], last)
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self._origin}: {error}.") from error

    def hashed(self) -> Vocabulary:
        """MPZCH: the place of an id is its row."""
        try:
            ids = self._buffer(_HASHED)
            rows = (ids != _EMPTY_PLACE).nonzero().flatten()
            return self._placed(ids[rows], rows, {})
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self._origin}: {error}.") from error

    def columns(self) -> dict[str, Column]:
        """ZCH keeps its counts in the order of the sorted ids: by row they are wanted."""
        names = {"frequency": _FREQUENCY, "version": _VERSION}
        return {
            column: lambda leaf=leaf: self._by_row(leaf)  # type: ignore[misc]
            for column, leaf in names.items()
            if f"{self._folder}.{leaf}" in self._checkpoint
        }

    def _starts(self) -> torch.Tensor:
        """The first row of each rank that had some when it was saved."""
        if f"{self._folder}.{_SEGMENTS}" not in self._checkpoint:
            return torch.zeros(1, dtype=torch.int64)
        said = self._integers(_SEGMENTS, range(_MOST_SEGMENTS + 2))
        bounds = torch.unique_consecutive(said[: int((said >= 0).to(torch.int64).cumprod(0).sum())])
        is_whole = len(bounds) > 1 and [int(bounds[0]), int(bounds[-1])] == [0, self._rows]
        if not is_whole or bool((bounds[1:] < bounds[:-1]).any()):
            shown = ", ".join(map(str, bounds[:3].tolist()))
            raise MalformedError(f"{_SEGMENTS} ({shown}, ...) does not cut {self._rows} rows")
        starts: torch.Tensor = bounds[:-1]
        return starts

    def _check_segments(
        self, rows: torch.Tensor, there: torch.Tensor, starts: torch.Tensor
    ) -> None:
        """A rank has only rows of its own to give."""
        places = torch.arange(len(rows))[there]
        of_place = torch.searchsorted(starts, places, right=True)
        if not bool((of_place == torch.searchsorted(starts, rows[there], right=True)).all()):
            raise MalformedError(
                "an id has a row of another rank's, or a row is none of its values"
            )

    def _by_row(self, leaf: str) -> torch.Tensor:
        try:
            column = torch.zeros(self._rows, dtype=torch.int64)
            there = self._buffer(_SORTED) != _EMPTY
            column[self._buffer(_ROWS)[there]] = self._buffer(leaf)[there]
            return column
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self._origin}: {error}.") from error

    def _buffer(self, leaf: str) -> torch.Tensor:
        """A number for each row."""
        return self._integers(leaf, range(self._rows, self._rows + 1))

    def _integers(self, leaf: str, sizes: range) -> torch.Tensor:
        key = f"{self._folder}.{leaf}"
        spec = self._checkpoint.get(key)
        if spec is None or spec.dtype is None or spec.dtype.is_floating_point:
            raise MalformedError(f"{key!r} is missing, or holds no integers")
        if spec.numel not in sizes:
            raise MalformedError(f"{key!r} is {list(spec.shape)} for {self._rows} rows of values")
        found: torch.Tensor = self._checkpoint.get_tensor(key).flatten().to(torch.int64)
        return found

    def _placed(
        self, ids: torch.Tensor, rows: torch.Tensor, special: dict[str, range]
    ) -> Vocabulary:
        order = torch.argsort(rows)
        ids, rows = ids[order], rows[order]
        outside = bool(len(rows)) and not 0 <= int(rows[0]) <= int(rows[-1]) < self._rows
        if outside or bool((rows[1:] == rows[:-1]).any()):
            raise MalformedError("two ids have one row, or a row is none of its values")
        if len(torch.unique(ids)) != len(ids):
            raise MalformedError("an id is there twice")
        special = {n: span for n, span in special.items() if not bool((rows == span.start).any())}
        listed = Entries(self._origin, "id", ids=ids)
        return Vocabulary(listed, self._rows, rows, special=special)
