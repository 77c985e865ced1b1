"""A folder of Monolith's tables, beside its checkpoint as `model.ckpt-<step>.assets/`.

The tensor `t` has the rows of table `t`, `t/adagrad/norm` a slot's, by the names in the records. A
record says all of an id, so a slot has the ids of those records that have the slot.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.errors import CorruptCheckpointError, shown_entry
from torch_warmstart.formats.base import (
    Checkpoint,
    Family,
    MalformedError,
    TensorLocation,
    TensorSpec,
)
from torch_warmstart.formats.keyed import Columns, KeyedTable, table_of, without_rows
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.sources import OpenOnce
from torch_warmstart.formats.tensorflow.monolith.entry_dumps import (
    Dumps,
    Spots,
    dumps_in,
    floats_of,
    ids_of,
    spots_of,
    updates_of,
)
from torch_warmstart.formats.tensorflow.monolith.record_files import (
    HEAD,
    Records,
    records_in,
    unpacked,
)
from torch_warmstart.formats.tensorflow.monolith.shards import (
    Part,
    Parts,
    base_of,
    groups_in,
    tables_in,
)
from torch_warmstart.storage import ByteSource, base_name, below, parent
from torch_warmstart.values import frozen

_ID_TAG = b"\x09"  # with which an EntryDump begins: field 1, eight bytes
_BLOCK = 1 << 20  # bytes, of which the first compressed block takes less
_LOOKED_AT = 64  # files of a folder that are looked at to know what it is
_NO_IDS = "records of something else than ids and rows"


def sniff(place: Place) -> str | None:
    """Whether it is a folder of tables, or a file of one: by names and the first record."""
    if place.is_file:
        is_one = base_of(base_name(place.url)) is not None and _begins(place.source)
        return None if is_one else "no record of an id under a name such as table-00000-of-00001"
    files = [name for name in sorted(place.names) if base_of(name) is not None][:_LOOKED_AT]
    for name in files:
        source = place.storage.open(below(place.url, name))
        try:
            if _begins(source):
                return None
        finally:
            source.close()
    return "no records of ids in files such as table-00000-of-00001"


def _begins(source: ByteSource) -> bool:
    """Whether a file begins with a record of an id."""
    head = source.read(0, min(source.size, _BLOCK))
    try:
        first = unpacked(head, only_first=True)
    except MalformedError:
        return False
    return first[HEAD : HEAD + 1].tobytes() == _ID_TAG


def open_place(place: Place) -> MonolithCheckpoint:
    """All tables in a folder, or the one whose file was named.

    Raises CorruptCheckpointError: a file is missing or damaged, or has records that are none.
    """
    wrong = sniff(place)
    if wrong is not None:
        raise CorruptCheckpointError(f"{place.url}: {wrong}.")
    folder = parent(place.url) if place.is_file else place.url
    names = place.storage.list_directory(folder) if place.is_file else place.names
    if place.is_file:
        base = base_of(base_name(place.url))
        names = [name for name in names if base_of(name) in (base, f"{base}.meta")]
    return MonolithCheckpoint(place, folder, names)


@frozen(eq=False)
class _Values:
    """A tensor: of each part the file and the records whose floats it has."""

    slot: str  # "": the rows themselves
    width: int
    parts: tuple[tuple[Part, Spots], ...]

    @property
    def rows(self) -> int:
        return sum(len(at) for _, at in self.parts)


class MonolithCheckpoint(Checkpoint):
    """Tables by name; records are looked at once, when it is opened."""

    family: Family = "torch"
    format = "Monolith tables"

    def __init__(self, place: Place, folder: str, names: Sequence[str]) -> None:
        """Looks at all records; see `open_place`."""
        self.url: str = place.url
        self._storage, self._verify = place.storage, place.verify
        self._folder_url = folder
        self._sources = OpenOnce[ByteSource]()
        self._dumps: dict[str, Dumps] = {}
        self._others: list[str] = []
        try:
            groups = groups_in(names)
            self._parts = {
                name: parts
                for name, parts in tables_in(groups, self._records_of).items()
                if all(self._is_of_ids(part.file) for part in parts)
            }
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self.url}: {error}.") from error
        self._values = dict(self._all_values())
        self._check_all_counted()

    def _check_all_counted(self) -> None:
        """Raises CorruptCheckpointError: a file of several tables has records that none counts.

        They follow one another, so that with one of them left out all behind are another table's.
        """
        counted: dict[str, set[tuple[int, int]]] = {}
        for part in (part for parts in self._parts.values() for part in parts):
            counted.setdefault(part.file, set()).add((part.first, part.count))
        for file, spans in counted.items():
            there, told = len(self._dumps[file].records), sum(count for _, count in spans)
            if min(count for _, count in spans) >= 0 and told != there:
                raise CorruptCheckpointError(
                    f"{self.url}: {file} has {there:,} records, but its tables' counts make "
                    f"{told:,}."
                )

    # -- files -------------------------------------------------------------------------------------

    def _source(self, file: str) -> ByteSource:
        def open_it() -> ByteSource:
            url = below(self._folder_url, file)
            with self._storage.named_by(self._folder_url.rstrip("/") + "/", url):
                return self._storage.open(url)

        return self._sources.get(file, open_it)

    def _records_of(self, file: str) -> Records:
        source = self._source(file)
        try:
            return records_in(unpacked(source.read(0, source.size)), verify=self._verify)
        except MalformedError as error:
            raise MalformedError(f"{file}: {error}") from error

    def _is_of_ids(self, file: str) -> bool:
        """Whether a file has records of ids; one without any record may be of a table's."""
        if file in self._dumps:
            return True
        records = self._records_of(file)
        if len(records) and records.data[HEAD : HEAD + 1].tobytes() != _ID_TAG:
            self._others.append(file)
            return False
        try:
            self._dumps[file] = dumps_in(records)
        except MalformedError as error:
            raise MalformedError(f"{file}: {error}") from error
        return True

    def _dumps_of(self, file: str) -> Dumps:
        """What was found of a file, over its bytes as they are now: it may have been changed."""
        dumps = self._dumps[file]
        source = self._source(file)
        if len(dumps.records.data) != source.size:  # unpacked: a copy
            return dumps
        return replace(dumps, records=replace(dumps.records, data=source.read(0, source.size)))

    def _close(self) -> None:
        self._sources.close()

    # -- what the records hold ---------------------------------------------------------------------

    def _all_values(self) -> Iterator[tuple[str, _Values]]:
        for name, parts in self._parts.items():
            yield from self._told_values_of(name, parts)

    def _told_values_of(self, name: str, parts: Parts) -> list[tuple[str, _Values]]:
        try:
            return list(self._values_of(name, parts))
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self.url}: table {name!r}: {error}.") from error

    def _values_of(self, name: str, parts: Parts) -> Iterator[tuple[str, _Values]]:
        spans = tuple((part, self._span(part)) for part in parts)
        forms = [
            self._dumps[part.file].forms[number]
            for part, at in spans
            for number in np.unique(self._dumps[part.file].form_of[at])
        ]
        if not forms:
            yield name, _Values("", 0, spans)  # nothing tells how wide it is
        for slot in ("", *sorted({slot for form in forms for slot in form.slots})):
            widths = {len(spots_of(form, slot)) for form in forms} - ({0} if slot else set())
            if len(widths) > 1 or 0 in widths:
                raise MalformedError(f"its {slot or 'rows'} have {sorted(widths)} numbers")
            if widths:
                having = tuple((part, self._having(part, at, slot)) for part, at in spans)
                yield f"{name}/{slot}" if slot else name, _Values(slot, widths.pop(), having)

    def _span(self, part: Part) -> Spots:
        there = len(self._dumps[part.file].records)
        count = there - part.first if part.count < 0 else part.count
        if part.first + count > there:
            raise MalformedError(f"{count:,} records are counted, {part.file} has {there:,} in all")
        return np.arange(part.first, part.first + count)

    def _having(self, part: Part, at: Spots, slot: str) -> Spots:
        dumps = self._dumps[part.file]
        has = np.array([len(spots_of(form, slot)) > 0 for form in dumps.forms], bool)
        return at[has[dumps.form_of[at]]] if len(at) else at

    @on_cpu
    def tables(self) -> Mapping[str, KeyedTable]:
        return self._tables

    @functools.cached_property
    def _tables(self) -> Mapping[str, KeyedTable]:
        found: dict[str, KeyedTable] = {}
        for name in self._parts:
            if name in self._values:
                slots = {
                    values.slot: self._table(key, values)
                    for key, values in self._values.items()
                    if values.slot and key == f"{name}/{values.slot}"
                }
                found[name] = replace(self._table(name, self._values[name]), slots=slots)
        return found

    def _table(self, key: str, values: _Values) -> KeyedTable:
        columns = [self._columns(part, at) for part, at in values.parts]
        width = (values.width,) if values.width else ()
        return table_of(key, key, width, columns, f"{self.url}[{key}]")

    def _columns(self, part: Part, at: Spots) -> Columns:
        def read_keys() -> torch.Tensor:
            keys = torch.from_numpy(ids_of(self._dumps_of(part.file), at))
            if part.owner is not None:
                number, count = part.owner
                wrong = torch.remainder(keys, count) != number
                if bool(wrong.any()):
                    key = shown_entry(int(keys[wrong][0]))
                    raise MalformedError(
                        f"key {key} is in {part.file}, which is not that of its remainder by "
                        f"{count}: these are {count} tables, not one on {count} servers; name one "
                        "of them"
                    )
            return keys

        return Columns(
            rows=len(at),
            keys=read_keys,
            columns={
                "version": lambda: torch.from_numpy(updates_of(self._dumps_of(part.file), at))
            },
        )

    # -- tensors -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def _find(self, key: str) -> TensorSpec | None:
        if key not in self._values:
            return None
        values = self._values[key]
        if not values.width:
            said = without_rows("there is nothing to take of it, so leave its variable out")
            return TensorSpec(key, (values.rows,), None, "float32", unreadable=said)
        return TensorSpec(key, (values.rows, values.width), torch.float32, "float32")

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        values = self._values[spec.key]
        count = values.rows if rows is None else len(rows)
        found = torch.empty(count, values.width, dtype=torch.float32)
        first = 0
        for part, at in values.parts:
            behind, dumps = first + len(at), self._dumps_of(part.file)
            if rows is None:
                numbers = floats_of(dumps, at, values.slot, values.width)
                found[first:behind] = torch.from_numpy(numbers)
            else:
                here = ((rows >= first) & (rows < behind)).nonzero().flatten()
                wanted = at[(rows[here] - first).numpy()]
                numbers = floats_of(dumps, wanted, values.slot, values.width)
                found[here] = torch.from_numpy(numbers)
            first = behind
        return found

    def location(self, key: str) -> TensorLocation:
        parts = self._values[self.spec(key).key].parts
        files = tuple(dict.fromkeys(part.file for part, _ in parts))
        return TensorLocation(files, len(files) if len(files) > 1 else 0)

    def besides(self) -> Mapping[str, str]:
        return {**super().besides(), **dict.fromkeys(self._others, _NO_IDS)}
