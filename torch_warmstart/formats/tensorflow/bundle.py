"""TensorFlow V2 checkpoints, "tensor bundles": `P.index` and `P.data-00000-of-0000n`.

The index is a table: the empty key holds the header, every other key a tensor's entry (dtype,
shape, data file, offset, size, checksum) or, for a tensor kept in slices, the list of its slices.
Opening a bundle reads the index only; entries are decoded when asked for; data files are opened
when needed.

Source: tensorflow `core/util/tensor_bundle/tensor_bundle.cc`, `core/protobuf/tensor_bundle.proto`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from torch_warmstart.computing import Box, on_cpu
from torch_warmstart.dtypes import aligned, take_rows
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.base import (
    OBJECT_GRAPH_KEY,
    Block,
    Checkpoint,
    Family,
    GraphOptimizer,
    MalformedError,
    NameKind,
    SavedLayer,
    TensorLocation,
    TensorSpec,
)
from torch_warmstart.formats.rows import Run, fetch_rows, read_rows
from torch_warmstart.formats.sources import OpenOnce
from torch_warmstart.formats.tensorflow.dtypes import STRING
from torch_warmstart.formats.tensorflow.records import (
    Entry,
    Header,
    check_size,
    decode_entry,
    decode_header,
    decode_strings,
)
from torch_warmstart.formats.tensorflow.table import Table
from torch_warmstart.formats.tensorflow.wire import crc32c, decode_text, encode_text, mask_crc
from torch_warmstart.storage import (
    LOCAL,
    Bytes,
    ByteSource,
    Range,
    Storage,
    base_name,
    join,
    parent,
)

if TYPE_CHECKING:
    from torch_warmstart.entries import Vocabulary
    from torch_warmstart.formats.tensorflow.objects import Metadata, ObjectGraph

_FETCHED = torch.empty(0, dtype=torch.int64)  # no more rows need to be fetched


class BundleCheckpoint(Checkpoint):
    """A V2 checkpoint."""

    format = "TensorFlow V2 checkpoint"
    family: Family = "tensorflow"
    has_checksums = True

    def __init__(self, prefix: str, storage: Storage = LOCAL, *, verify: bool = True) -> None:
        """Opens the index; raises FileNotFoundError or CorruptCheckpointError.

        Args:
            prefix: Path without `.index`.
            storage: Where the files come from.
            verify: Check each tensor's CRC-32C before handing it out, once.
        """
        self.url = prefix
        self._storage, self._verify = storage, verify
        self._index_url = prefix + ".index"
        self._table = Table(storage.open(self._index_url))
        self._header = self._read_header()
        self._shards = OpenOnce[ByteSource]()
        self._verified: set[str] = set()
        self._slices: dict[str, list[Entry]] = {}  # by key, of tensors whose slices were looked up
        # Of the table, as far as it was looked into; kept decoded where that would take long again.
        self._values: dict[bytes, bytes | Entry] = {}
        self._keys: list[str] | None = None

    # -- the index ---------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        if self._keys is None:
            self._keys = self._list_keys()
        return iter(self._keys)

    def _list_keys(self) -> list[str]:
        """All keys but the header's and those of slices that a tensor lists as its own."""
        values = dict(self._table)
        values.pop(b"", None)
        hidden = set[bytes]()
        if next(iter(values), b"").startswith(b"\0"):  # slices sort before every name
            for key, value in values.items():
                hidden.update(self._own_slices(key, value, values))
        self._values = {**values, **self._values}
        return [decode_text(key) for key in values if key not in hidden]

    def _own_slices(
        self, key: bytes, value: bytes, known: Mapping[bytes, object]
    ) -> Iterator[bytes]:
        """The keys of a tensor's slices, up to the first that is not there: then it is damaged."""
        from torch_warmstart.formats import slices

        for extents in dict.fromkeys(self._decode_entry(key, value).slices):
            slice_key = slices.encode_slice_key(key, extents)
            if slice_key not in known:
                return
            yield slice_key

    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        return {} if self._graph is None else self._graph.full_names

    def keys_of(self, name: str) -> tuple[str, ...]:
        return () if self._graph is None else self._distinct(self._graph.keys_of(name))

    def keys_like(self, pattern: str, *, in_a_scope: bool = False) -> tuple[str, ...]:
        if self._graph is None:
            return ()
        return self._distinct(self._graph.keys_like(pattern, in_a_scope=in_a_scope))

    def scopes(self) -> tuple[str, ...]:
        return () if self._graph is None else self._graph.root_edges

    def name_kind(self, name: str) -> NameKind:
        if self._graph is None:
            return "own"
        if name in self._graph.short_names:
            return "short"
        from torch_warmstart.formats.tensorflow.objects import is_storage_path

        return "storage" if is_storage_path(name) else "own"

    def object_paths(self, key: str) -> tuple[str, ...]:
        return () if self._graph is None else self._graph.paths_to(key)

    def _distinct(self, found: Sequence[str]) -> tuple[str, ...]:
        """Of keys that are there, one for each content."""
        keys = [key for key in found if key in self]
        distinct = {self._contents(key): key for key in reversed(keys)}
        return tuple(reversed(distinct.values()))

    def graph_optimizers(self) -> Sequence[GraphOptimizer]:
        return () if self._graph is None else self._graph.optimizers()

    def layer_of(self, key: str) -> SavedLayer | None:
        return self._layers.get(key)

    @functools.cached_property
    def _layers(self) -> Mapping[str, SavedLayer]:
        return {} if self._graph is None else self._graph.layers(self._keras_metadata())

    def _keras_metadata(self) -> Metadata:
        """What tf_keras says of the layers in the SavedModel that this is the checkpoint of."""
        from torch_warmstart.formats.tensorflow.objects import METADATA_FILE, read_metadata

        folder = parent(self.url)
        url = join(parent(folder), METADATA_FILE)
        if base_name(folder) != "variables" or not self._storage.exists(url):
            return {}
        try:
            return read_metadata(self._storage.read_all(url).tobytes())
        except MalformedError as error:
            raise CorruptCheckpointError(f"{url}: {error}.") from error

    @on_cpu
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        from torch_warmstart.entries import vocabularies_of
        from torch_warmstart.formats.tensorflow.lookup_tables import (
            filled_vocabularies,
            lookups_in_metadata,
            table_vocabularies,
        )

        told = lookups_in_metadata(self._keras_metadata(), self._table_entries)
        # Where nothing says which layers there are, as in what Keras 3 exports, by their places.
        of_saved = functools.partial(filled_vocabularies, origin=self.url)
        filled = {} if told else self._of_saved_model(of_saved)
        return {**filled, **table_vocabularies(self), **vocabularies_of(told, self.url)}

    def _table_entries(self, paths: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """What the tables of layers are filled with, in the SavedModel that this is of."""
        from torch_warmstart.formats.tensorflow.saved_model import table_entries

        return self._of_saved_model(functools.partial(table_entries, paths=paths))

    def _of_saved_model(self, read: Callable[[bytes], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What something reads of the SavedModel that this is of, if it is one's."""
        from torch_warmstart.formats.tensorflow.saved_model import FILE

        folder = parent(self.url)
        url = join(parent(folder), FILE)
        if base_name(folder) != "variables" or not self._storage.exists(url):
            return {}
        try:
            return read(self._storage.read_all(url).tobytes())
        except MalformedError as error:
            raise CorruptCheckpointError(f"{url}: {error}.") from error

    def _contents(self, key: str) -> object:
        """Equal for tensors that hold the same: Keras 3's `export()` stores each variable twice."""
        entry = self._entry(key)
        if entry.slices:
            return key
        return entry.stored.name, entry.shape, entry.size, entry.crc

    @functools.cached_property
    def _graph(self) -> ObjectGraph | None:
        if OBJECT_GRAPH_KEY not in self:
            return None
        from torch_warmstart.formats.tensorflow.objects import ObjectGraph

        strings = self.get_tensor(OBJECT_GRAPH_KEY)
        try:
            if not isinstance(strings, list) or len(strings) != 1:
                raise MalformedError("it is not one string")
            return ObjectGraph(strings[0])
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self.url}: its object graph: {error}.") from error

    def _find(self, key: str) -> TensorSpec | None:
        entry = self._find_entry(encode_text(key))
        if entry is None:
            return None
        storage = (entry.shard, entry.offset) if entry.size else None
        return TensorSpec(key, entry.shape, entry.stored.dtype, entry.stored.name, storage)

    def _entry(self, key: str) -> Entry:
        entry = self._find_entry(encode_text(key))
        assert entry is not None, key  # get_tensor() and verify() look the key up first
        return entry

    def _find_entry(self, key: bytes) -> Entry | None:
        in_full = self._keys is not None  # then what is not among the values is not there
        value = self._values.get(key)
        if value is None and key and not in_full:
            value = self._table.get(key)
        if not isinstance(value, bytes):
            return value
        entry = self._decode_entry(key, value)
        self._values[key] = entry if entry.slices else value
        return entry

    def _read_header(self) -> Header:
        value = self._table.get(b"")
        if value is None:
            raise CorruptCheckpointError(
                f"{self._index_url} has no header entry: it is an SSTable, but not the index of a "
                "TensorFlow V2 checkpoint."
            )
        try:
            return decode_header(value)
        except MalformedError as error:
            raise CorruptCheckpointError(f"{self._index_url}: its header: {error}.") from error

    def _decode_entry(self, key: bytes, value: bytes) -> Entry:
        try:
            entry = decode_entry(value)
            if not 0 <= entry.shard < self._header.num_shards:
                raise MalformedError(
                    f"it names data file {entry.shard} of {self._header.num_shards}"
                )
            return entry
        except MalformedError as error:
            raise self._damaged(decode_text(key), str(error)) from error

    def location(self, key: str) -> TensorLocation:
        entry = self._find_entry(encode_text(key))
        if entry is None:
            return self.location(self._find_named(key).key)
        shards = sorted({part.shard for part in self._parts(key, entry)})
        files = tuple(base_name(self._shard_url(shard)) for shard in shards)
        return TensorLocation(files, len(entry.slices))

    # -- the data ----------------------------------------------------------------------------

    def prefetch(self, keys: Sequence[str]) -> None:
        ranges: dict[int, list[Range]] = {}
        for key in keys:
            for part in self._parts(key, self._entry(key)):
                ranges.setdefault(part.shard, []).append((part.offset, part.offset + part.size))
        for shard, wanted in ranges.items():
            source = self._shard(shard)
            source.prefetch([r for r in wanted if 0 <= r[0] <= r[1] <= source.size])

    def verify(self, key: str) -> None:
        spec = self.spec(key)
        self._check_readable(spec)  # the checksum of a variant is of another kind
        key, entry = spec.key, self._entry(spec.key)
        if key in self._verified:
            return
        try:
            if entry.stored is STRING:
                self._read_strings(entry, check=True)
            else:
                for part in self._parts(key, entry):
                    self._check_crc(part)
        except MalformedError as error:
            raise self._damaged(key, str(error)) from error
        self._verified.add(key)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        from torch_warmstart.formats import slices

        entry = self._entry(spec.key)
        try:
            if entry.stored is STRING:
                strings = self._read_strings(entry, check=self._verify)
                return slices.string_rows(strings, entry.shape, rows)
            parts = self._parts(spec.key, entry)
            if rows is None and self._verify:
                self.verify(spec.key)
            if entry.slices:
                return self._read_slices(entry, parts, rows)
            tensor = self._view(entry, rows)
            return self._unpack(entry, tensor if rows is None else take_rows(tensor, rows))
        except MalformedError as error:
            raise self._damaged(spec.key, str(error)) from error

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        entry = self._entry(spec.key)
        parts = self._parts(spec.key, entry)
        try:
            firsts = self._first_rows(entry, parts)
            if firsts is None:
                return super()._row_blocks(spec, rows)
            runs = _joined(firsts, parts)
            fetch_rows([self._run(first, part) for first, part in runs], rows)
            stored = [self._as_stored(part, _FETCHED) for _, part in runs]
            return [
                (first, self._unpack(part, tensor))
                for (first, part), tensor in zip(runs, stored, strict=True)
            ]
        except MalformedError as error:
            raise self._damaged(spec.key, str(error)) from error

    def _first_rows(self, entry: Entry, parts: list[Entry]) -> list[int] | None:
        """At which row each part begins; None if the parts are no whole rows."""
        if entry.stored is STRING:
            return None
        if not entry.slices:
            return [0]
        boxes = self._check_slices(entry, parts)
        if any(box.sizes[1:] != entry.shape[1:] for box in boxes):
            return None
        return [box.offsets[0] for box in boxes]

    def _run(self, first: int, part: Entry) -> Run:
        source = self._shard(part.shard)
        return Run(source, part.offset, part.row_bytes, part.shape[0], first)

    def _parts(self, key: str, entry: Entry) -> list[Entry]:
        """The entries that hold a tensor's bytes: itself, or its slices in the order listed."""
        if key in self._slices:
            return self._slices[key]
        try:
            parts = self._slice_entries(key, entry) if entry.slices else [entry]
            for part in parts:
                check_size(part)
        except MalformedError as error:
            raise self._damaged(key, str(error)) from error
        if entry.slices:  # there may be thousands
            self._slices[key] = parts
        return parts

    def _slice_entries(self, key: str, entry: Entry) -> list[Entry]:
        from torch_warmstart.formats import slices

        found = {}
        # In the order of their keys, as the index is: each of its blocks is then decoded once.
        for extents in sorted(entry.slices, key=lambda extents: (len(extents), extents)):
            if extents in found:
                raise MalformedError(f"its slices overlap: {extents} is listed twice")
            part = self._find_entry(slices.encode_slice_key(encode_text(key), extents))
            if part is None:
                raise MalformedError(f"its slice {extents} is not in the index")
            if part.stored is not entry.stored:
                raise MalformedError(f"its slice {extents} is of type {part.stored.name}")
            found[extents] = part
        return [found[extents] for extents in entry.slices]

    def _check_slices(self, entry: Entry, parts: list[Entry]) -> list[Box]:
        """Where each slice is in the tensor, which they cover exactly once."""
        from torch_warmstart.formats import slices

        boxes = [slices.resolve_box(extents, entry.shape) for extents in entry.slices]
        for box, part in zip(boxes, parts, strict=True):
            if part.shape != box.sizes:
                raise MalformedError(f"its slice at {box.offsets} has shape {part.shape}")
        self._check_backed(parts)
        slices.check_cover(boxes, entry.shape)
        return boxes

    def _read_slices(
        self, entry: Entry, parts: list[Entry], rows: torch.Tensor | None
    ) -> torch.Tensor:
        from torch_warmstart.formats import slices

        boxes = self._check_slices(entry, parts)
        pieces = (
            self._view(part, None if rows is None else box.rows_within(rows))
            for box, part in zip(boxes, parts, strict=True)
        )
        assert entry.stored.dtype is not None
        joined = slices.join(boxes, pieces, entry.shape, entry.stored.dtype, rows)
        return self._unpack(entry, joined)

    def _check_backed(self, parts: list[Entry]) -> None:
        """Slices that share their bytes could claim a tensor of any size from a small file."""
        claimed = sum(part.size for part in parts)
        present = sum(self._shard(shard).size for shard in {part.shard for part in parts})
        if claimed > present:
            raise MalformedError(
                f"its slices claim {claimed:,} bytes, its data files hold {present:,}"
            )

    def _view(self, entry: Entry, rows: torch.Tensor | None) -> torch.Tensor:
        """The tensor as stored, on top of the mapping where that is possible.

        With `rows`, only those need to be there.
        """
        return aligned(self._as_stored(entry, rows))  # TF packs tensors densely

    def _as_stored(self, entry: Entry, rows: torch.Tensor | None) -> torch.Tensor:
        """The same, but at any byte."""
        assert entry.stored.dtype is not None
        if not entry.numel:  # numpy's empty arrays may have strides that torch cannot view
            return torch.empty(entry.shape, dtype=entry.stored.dtype)
        raw = torch.from_numpy(self._native(self._raw(entry, rows), entry))
        return raw.view(entry.stored.dtype).view(entry.shape)

    def _native(self, raw: Bytes, entry: Entry) -> Bytes:
        dtype = entry.stored.dtype
        assert dtype is not None
        if not self._header.big_endian or dtype.itemsize == 1:
            return raw
        word = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        swapped: Bytes = raw.reshape(-1, word)[:, ::-1].copy()
        return swapped.reshape(-1)

    def _unpack(self, entry: Entry, tensor: torch.Tensor) -> torch.Tensor:
        if entry.stored.unpack is None:
            return tensor
        try:
            return entry.stored.unpack(tensor)
        except CorruptCheckpointError as error:
            raise MalformedError(str(error)) from error

    def _read_strings(self, entry: Entry, *, check: bool) -> list[bytes]:
        if entry.slices:
            raise MalformedError("strings kept in slices, which no TensorFlow reads")
        big_endian = self._header.big_endian
        return decode_strings(self._raw(entry), entry, check=check, big_endian=big_endian)

    def _check_crc(self, entry: Entry) -> None:
        crc = 0
        for piece in self._shard(entry.shard).pieces(entry.offset, entry.size):
            crc = crc32c(piece, crc)
        computed = mask_crc(crc)
        if computed != entry.crc:
            raise MalformedError(
                f"its checksum is {entry.crc:#010x} in the index, {computed:#010x} computed over "
                f"{entry.size:,} bytes at offset {entry.offset:,} of data file {entry.shard}"
            )

    def _raw(self, entry: Entry, rows: torch.Tensor | None = None) -> Bytes:
        source = self._shard(entry.shard)
        if rows is None or not entry.shape:
            return source.read(entry.offset, entry.size)
        return read_rows(source, entry.offset, entry.size, entry.row_bytes, rows)

    def _shard(self, number: int) -> ByteSource:
        return self._shards.get(number, lambda: self._open_shard(self._shard_url(number)))

    def _open_shard(self, url: str) -> ByteSource:
        with self._storage.named_by(self._index_url, url):
            return self._storage.open(url)

    def _shard_url(self, number: int) -> str:
        return f"{self.url}.data-{number:05d}-of-{self._header.num_shards:05d}"

    def _close(self) -> None:
        self._shards.close()


def _joined(firsts: list[int], parts: list[Entry]) -> list[tuple[int, Entry]]:
    """Parts in the order of their rows; neighbours that are neighbours in the file too as one.

    So TensorFlow writes a partitioned variable, if one machine writes it.
    """
    runs: list[tuple[int, Entry]] = []
    for first, part in sorted(zip(firsts, parts, strict=True), key=lambda run: run[0]):
        before = runs[-1][1] if runs else None
        if before and (part.shard, part.offset) == (before.shard, before.offset + before.size):
            shape = (before.shape[0] + part.shape[0], *part.shape[1:])
            runs[-1] = (runs[-1][0], before._replace(shape=shape, size=before.size + part.size))
        else:
            runs.append((first, part))
    return runs
