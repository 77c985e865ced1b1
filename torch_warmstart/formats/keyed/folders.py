"""Folders of raw files, a column in each, as HugeCTR writes them; what others write is alike.

HugeCTR (docs/source/api/python_interface.md): in a folder for each table `key` int64 and
`emb_vector` float32, in one order. Nothing but the length of a file tells how wide its rows are, so
that these are compared all with all. Without any row nothing does, and the table says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats import recognise
from torch_warmstart.formats.base import (
    Block,
    Checkpoint,
    Family,
    MalformedError,
    TensorLocation,
    TensorSpec,
)
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.rows import Run, fetch_rows
from torch_warmstart.storage import ByteSource, Storage, base_name, below
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.formats.keyed.columns import Columns
    from torch_warmstart.formats.keyed.table import KeyedTable

OPT_VALUES = "opt_values"
_SCORES, _WORD = "scores", 8  # bytes of an int64
NOT_SAID = 0  # how wide rows are of which there is none
_Runs = list[tuple[str, int, int]]  # of each part the file, its rows, the numbers of each


def open_hugectr(place: Place) -> FolderCheckpoint:
    """A table, called as its folder is; raises CorruptCheckpointError without its files."""
    check_files(place, recognise.hugectr(place))
    name = base_name(place.url.rstrip("/"))
    parts = [Files(recognise.HUGECTR_KEYS, {"values": recognise.HUGECTR_VALUES})]
    return FolderCheckpoint(place.url, place.storage, "HugeCTR folder", {name: parts})


def without_rows(hint: str) -> str:
    """Why a table is unreadable that has no rows, where only rows tell how wide they are."""
    return f"has no rows, and no file says how many numbers a row has: {hint}"


def _numbers_each(sizes: Sequence[int], counts: Sequence[int], each: int) -> int | None:
    """How many numbers of so many bytes a row has in all files; None: not one number of them."""
    pairs = list(zip(sizes, counts, strict=True))
    found = {size / (each * count) for size, count in pairs if count}
    number = max(found, default=float(NOT_SAID))
    is_whole = len(found) <= 1 and number == int(number) and (number >= 1 or not found)
    is_lie = any(size and not count for size, count in pairs)
    return int(number) if is_whole and not is_lie else None


def check_files(place: Place, wrong: str | None) -> None:
    """Raises CorruptCheckpointError with what is wrong, if anything is."""
    if wrong is not None:
        raise CorruptCheckpointError(f"{place.url}: {wrong}.")


@frozen
class Types:
    """Of what type the keys and the values of all tables in a folder are."""

    keys: torch.dtype = torch.int64
    values: torch.dtype = torch.float32
    width: int = NOT_SAID  # of the rows of a table that has none
    text: int = 0  # bytes that a key takes, where it is text as it lies in memory

    @property
    def key_size(self) -> int:
        return self.text or self.keys.itemsize


@frozen
class Files:
    """A part of a table: the names of its files."""

    keys: str
    columns: Mapping[str, str]  # "values", "scores", "opt_values"
    check: Callable[[torch.Tensor], None] | None = None  # MalformedError: of keys of others


_AS_USUAL = Types()


class FolderCheckpoint(Checkpoint):
    """Tables by name: the tensor `t` has the values of all parts of table `t`."""

    family: Family = "torch"
    # What to do where no file says how wide rows are.
    say_width = "there is nothing to take of it, so leave its variable out"

    def __init__(
        self,
        url: str,
        storage: Storage,
        title: str,
        tables: Mapping[str, Sequence[Files]],
        types: Types = _AS_USUAL,
    ) -> None:
        """Nothing is read but the sizes of the files.

        Raises CorruptCheckpointError: a file is no whole number of rows, or has another width.
        """
        self.url: str = url
        self.format: str = title
        self._storage, self._files, self._types = storage, tables, types
        self._sources: dict[str, ByteSource] = {}
        runs = dict(self._all_runs())
        beside = self._widths_beside({key: of_key[0][2] for key, of_key in runs.items()})
        self._runs = {
            key: [(file, rows, width or beside.get(key, NOT_SAID)) for file, rows, width in of_key]
            for key, of_key in runs.items()
        }

    def _widths_beside(self, widths: Mapping[str, int]) -> Mapping[str, int]:  # noqa: ARG002
        """Of tensors that have no rows, how wide others tell that these are."""
        return {}

    def _all_runs(self) -> Iterator[tuple[str, _Runs]]:
        for name, parts in self._files.items():
            yield name, self._checked_runs(name, parts, "values")
            if all(_SCORES in part.columns for part in parts):
                self._check_scores(name, parts)
            if all(OPT_VALUES in part.columns for part in parts) and self._has_state(parts):
                yield f"{name}/{OPT_VALUES}", self._checked_runs(name, parts, OPT_VALUES)

    def _has_state(self, parts: Sequence[Files]) -> bool:
        """Whether the optimizer keeps something of a row: SGD does not, and its files are empty."""
        sizes = (self._source(part.columns[OPT_VALUES]).size for part in parts)
        return any(sizes) or not any(self._source(part.keys).size for part in parts)

    def _check_scores(self, name: str, parts: Sequence[Files]) -> None:
        """Raises CorruptCheckpointError: a key has not as many words of scores as the others."""
        counts = [self._count(part.keys) for part in parts]
        sizes = [self._source(part.columns[_SCORES]).size for part in parts]
        if _numbers_each(sizes, counts, _WORD) is None:
            raise CorruptCheckpointError(
                f"{self.url}: table {name!r}: its scores are {sum(sizes):,} bytes for "
                f"{sum(counts):,} keys, which makes no words for each."
            )

    def _checked_runs(self, name: str, parts: Sequence[Files], column: str) -> _Runs:
        try:
            return self._runs_of(parts, column)
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self.url}: table {name!r}: {error}.") from error

    def _runs_of(self, parts: Sequence[Files], column: str) -> _Runs:
        counts = [self._count(part.keys) for part in parts]
        sizes = [self._source(part.columns[column]).size for part in parts]
        width = _numbers_each(sizes, counts, self._types.values.itemsize)
        if width is None:
            raise MalformedError(
                f"its {column} are {sum(sizes):,} bytes for {sum(counts):,} keys, which makes no "
                "rows of one width"
            )
        return [
            (part.columns[column], count, width or self._types.width)
            for part, count in zip(parts, counts, strict=True)
        ]

    def _count(self, file: str) -> int:
        size = self._source(file).size
        if size % self._types.key_size:
            raise MalformedError(f"{file} has {size:,} bytes, which are no whole keys")
        return size // self._types.key_size

    def _keys_in(self, file: str) -> Any:
        return self._column(file, self._types.keys)

    def _source(self, file: str) -> ByteSource:
        if file not in self._sources:
            with self._storage.named_by(self.url.rstrip("/") + "/", below(self.url, file)):
                self._sources[file] = self._storage.open(below(self.url, file))
        return self._sources[file]

    def _column(self, file: str, dtype: torch.dtype) -> torch.Tensor:
        source = self._source(file)
        raw = source.read(0, source.size)
        if not len(raw):
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(raw.tobytes()), dtype=dtype)

    @on_cpu
    def tables(self) -> Mapping[str, KeyedTable]:
        return self._tables

    @functools.cached_property
    def _tables(self) -> Mapping[str, KeyedTable]:
        found = {}
        for name in self._files:
            slots = {}
            if f"{name}/{OPT_VALUES}" in self._runs:
                slots[OPT_VALUES] = self._table(name, f"{name}/{OPT_VALUES}")
            found[name] = replace(self._table(name, name), slots=slots)
        return self._with_slots(found)

    def _with_slots(self, tables: Mapping[str, KeyedTable]) -> Mapping[str, KeyedTable]:
        """The tables, those that are slots of others among these."""
        return tables

    def _table(self, name: str, key: str) -> KeyedTable:
        from torch_warmstart.formats.keyed.columns import table_of

        runs = self._runs[key]
        parts = [
            self._columns(files, rows)
            for files, (_, rows, _) in zip(self._files[name], runs, strict=True)
        ]
        width = (runs[0][2],) if runs[0][2] else ()
        return table_of(key, key, width, parts, f"{self.url}[{name}]")

    def _columns(self, files: Files, rows: int) -> Columns:
        from torch_warmstart.formats.keyed.columns import Columns

        def read_keys() -> Any:
            keys = self._keys_in(files.keys)
            if files.check is not None:
                files.check(keys)
            return keys

        scores = files.columns.get(_SCORES)
        is_one = scores is not None and self._source(scores).size == rows * _WORD
        columns = {"score": lambda: self._column(str(scores), torch.int64)} if is_one else {}
        return Columns(rows=rows, keys=read_keys, columns=columns)

    # -- the values --------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def _find(self, key: str) -> TensorSpec | None:
        if key not in self._runs:
            return None
        runs = self._runs[key]
        rows, width = sum(rows for _, rows, _ in runs), runs[0][2]
        dtype = self._types.values
        word = dtype_name(dtype)
        if width == NOT_SAID:
            return TensorSpec(key, (rows,), None, word, unreadable=without_rows(self.say_width))
        return TensorSpec(key, (rows, width), dtype, word)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        assert spec.dtype is not None
        parts = [
            self._column(file, spec.dtype).view(-1, width)
            for file, _, width in self._runs[spec.key]
        ]
        whole = torch.cat([torch.empty(0, spec.shape[1], dtype=spec.dtype), *parts])
        return whole if rows is None else whole.index_select(0, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        assert spec.dtype is not None
        runs, first = [], 0
        for file, count, width in self._runs[spec.key]:
            runs.append(Run(self._source(file), 0, spec.dtype.itemsize * width, count, first))
            first += count
        fetch_rows(runs, rows)
        return [
            (
                run.first,
                torch.from_numpy(run.source.view(0, run.nbytes))
                .view(spec.dtype)
                .view(-1, spec.shape[1]),
            )
            for run in runs
            if run.count
        ]

    def location(self, key: str) -> TensorLocation:
        runs = self._runs[self.spec(key).key]
        return TensorLocation(tuple(file for file, _, _ in runs))

    def _close(self) -> None:
        for source in self._sources.values():
            source.close()
