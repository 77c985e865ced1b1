"""A bundle that holds keyed tables: each shows itself as one tensor more, of all its parts.

The tensor `emb` has the rows of `emb/part_0-values`, `emb/part_1-values` and so on one behind the
other, so that whatever reads rows of a tensor reads a table's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError
from torch_warmstart.formats.base import Block, MalformedError, TensorLocation, TensorSpec
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.tensorflow import paths
from torch_warmstart.formats.tensorflow.bundle import BundleCheckpoint
from torch_warmstart.storage import base_name, is_remote, join, parent
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.formats.keyed import Columns, KeyedTable, Part

_KEYS, _SSD = "-keys", "-ssd_record.index"


@frozen
class _Values:
    """The values of a table: the tensors of its parts, and how many rows each has."""

    spec: TensorSpec
    parts: tuple[tuple[str, int], ...]


def open_place(place: Place) -> KeyedBundle:
    """Opens the checkpoint that a path stands for."""
    found = paths.look_up(place) or paths.find(place.url, place.storage)  # which tells why not
    return KeyedBundle(found.prefix, place.storage, verify=place.verify)


class KeyedBundle(BundleCheckpoint):
    """A V2 checkpoint with the tables of DeepRec's or TFRA's embedding variables."""

    @on_cpu
    def tables(self) -> Mapping[str, KeyedTable]:
        return self._tables

    @functools.cached_property
    def _parts_of(self) -> Mapping[str, list[Part]]:
        there = list(super().__iter__())
        if not any(key.endswith("keys") for key in there):  # as nearly always
            return {}
        from torch_warmstart.formats.keyed import parts_in

        try:
            found = parts_in(there)
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self.url}: {error}.") from error
        return {n: parts for n, parts in found.items() if all(map(self._has_values, parts))}

    def _has_values(self, part: Part) -> bool:
        """Whether it is a table of rows, not one of numbers: those are vocabularies.

        Keys that are vectors, as a layer of attention may call its weights, are no ids. A
        `DenseHashTable` keeps its numbers as rows of one, in the order of its buckets.
        """
        keys, spec = super()._find(part.keys), super()._find(part.values)
        is_vectors = keys is None or (
            len(keys.shape) > 1 and keys.dtype is not None and keys.dtype.is_floating_point
        )
        if spec is None or spec.dtype is None or len(spec.shape) != 2:
            return False
        is_of_numbers = spec.shape[1] == 1 and not spec.dtype.is_floating_point
        return not is_vectors and not is_of_numbers

    @functools.cached_property
    def _joined(self) -> Mapping[str, _Values]:
        found = {}
        for name, parts in self._parts_of.items():
            if super()._find(name) is None:
                found[name] = self._values_of(name, parts)
        return found

    def _values_of(self, name: str, parts: Sequence[Part]) -> _Values:
        specs = [self._stored(part.values) for part in parts]
        if len({(spec.shape[1:], spec.dtype) for spec in specs}) != 1:
            raise CorruptCheckpointError(
                f"{self.url}: the parts of table {name!r} have rows of several widths or dtypes."
            )
        rows = sum(spec.shape[0] for spec in specs)
        spec = replace(specs[0], key=name, shape=(rows, *specs[0].shape[1:]))
        if len(parts) > 1:
            spec = replace(spec, storage=None)
        return _Values(spec, tuple((s.key, s.shape[0]) for s in specs))

    def _stored(self, key: str) -> TensorSpec:
        spec = super()._find(key)
        assert spec is not None, key
        return spec

    @functools.cached_property
    def _tables(self) -> Mapping[str, KeyedTable]:
        made = {name: self._table_of(name) for name in self._joined}
        if not made:
            return {}
        from torch_warmstart.formats.keyed import slots_by_table

        return {
            name: replace(made[name], slots={slot: made[of] for slot, of in slots.items()})
            for name, slots in slots_by_table(made).items()
        }

    def _table_of(self, name: str) -> KeyedTable:
        from torch_warmstart.formats.keyed import table_of

        parts = self._parts_of[name]
        values, origin = self._joined[name], f"{self.url}[{name}]"
        columns = [
            self._columns(part, rows) for part, (_, rows) in zip(parts, values.parts, strict=True)
        ]
        table = table_of(name, name, values.spec.shape[1:], columns, origin)

        def read_keys() -> Any:
            self._check_tier(name)
            return table.read_keys()

        pieces = tuple(key for key, _ in values.parts)
        return replace(table, read_keys=read_keys, pieces=pieces)

    def _columns(self, part: Part, rows: int) -> Columns:
        from torch_warmstart.formats.keyed import Columns

        return Columns(
            rows=rows,
            keys=lambda: self.get_tensor(part.keys),
            columns={
                name: lambda key=key: self.get_tensor(key)  # type: ignore[misc]
                for name, key in part.columns.items()
                if self._stored(key).shape != (0,) or not rows  # [0]: it is not kept
            },
            offsets=(lambda: self.get_tensor(part.offsets)) if part.offsets else None,
            is_later=part.is_later,
        )

    def _check_tier(self, name: str) -> None:
        """DeepRec keeps what lies on SSDs in files of another form (embedding_var_restore.cc).

        They are called as the variable is, which of a table in parts is each part.
        """
        parts = self._parts_of[name]
        asked = [parts[0], parts[-1]] if is_remote(self.url) else parts
        stems = (part.keys.removesuffix(_KEYS) for part in asked)
        for stem in dict.fromkeys([name, *stems]):
            beside = f"{base_name(self.url)}-{stem.replace('/', '_')}{_SSD}"
            if self._storage.exists(join(parent(self.url), beside)):
                raise UnsupportedError(
                    f"{self.url}: table {name!r} has rows in {beside.removesuffix('.index')}, "
                    "which is how DeepRec keeps those that lie on an SSD; they are not read. "
                    "Export it from DeepRec with the storage type DRAM."
                )

    # -- a tensor more for each table --------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        yield from self._joined

    def _find(self, key: str) -> TensorSpec | None:
        spec = super()._find(key)
        if spec is None and key in self._joined:
            return self._joined[key].spec
        return spec

    def _pieces(self, key: str) -> tuple[tuple[str, int], ...]:
        """The tensors that a table's is made of; none if it is no table's."""
        return self._joined[key].parts if super()._find(key) is None else ()

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        pieces = self._pieces(spec.key)
        if not pieces:
            return super()._read(spec, rows)
        whole = torch.cat(
            [super(KeyedBundle, self)._read(self._stored(k), None) for k, _ in pieces]
        )
        return whole if rows is None else whole.index_select(0, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        pieces = self._pieces(spec.key)
        if not pieces:
            return super()._row_blocks(spec, rows)
        found: list[Block] = []
        first = 0
        for key, count in pieces:
            part = self._stored(key)
            if count:
                inside = rows[(rows >= first) & (rows < first + count)] - first
                blocks = super()._row_blocks(part, inside)
                found += [(first + number, block) for number, block in blocks]
            first += count
        return found

    def prefetch(self, keys: Sequence[str]) -> None:
        pieces = [piece for key in keys for piece, _ in self._pieces(key) or [(key, 0)]]
        super().prefetch(pieces)

    def verify(self, key: str) -> None:
        for piece, _ in self._pieces(self.spec(key).key) or [(key, 0)]:
            super().verify(piece)

    def location(self, key: str) -> TensorLocation:
        pieces = self._pieces(self.spec(key).key)
        if not pieces:
            return super().location(key)
        found = [super(KeyedBundle, self).location(piece) for piece, _ in pieces]
        return TensorLocation(tuple(dict.fromkeys(f for of in found for f in of.files)), len(found))
