"""Directories of torch.distributed.checkpoint: `.metadata` and the `.distcp` files it refers to.

Neither a process group nor torch's own reader is needed: the metadata says which part of which
tensor lies where, and each part is what `torch.save` makes of one tensor, read as every torch file
is. Of a tensor cut in parts, `rows` read only the parts that hold them. It works behind URLs too,
one part of a tensor at a time.

Source: torch `distributed/checkpoint/filesystem.py`, `metadata.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any, cast

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import as_bits, dtype_name, take_rows
from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError, WarmStartError
from torch_warmstart.formats import nested, slices
from torch_warmstart.formats.base import (
    Block,
    Checkpoint,
    Family,
    MalformedError,
    TensorLocation,
    TensorSpec,
)
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import DCP_METADATA
from torch_warmstart.formats.saved_optimizers import SavedOptimizer, find_optimizers, may_be_slot
from torch_warmstart.formats.sources import OpenOnce, SourceFile, Window
from torch_warmstart.formats.tensors import plain, why_unreadable, why_unreadable_dtype
from torch_warmstart.formats.torch.dcp.metadata import (
    Chunk,
    StoredObject,
    StoredTensor,
    decode_metadata,
)
from torch_warmstart.formats.torch.unpickling import load_tensors
from torch_warmstart.storage import (
    ByteSource,
    Range,
    below,
    join,
    parent,
)

_MAX_METADATA = 1 << 30  # bytes
_MAX_OBJECT = 64 << 20  # bytes: the names of a param group's parameters


def open_place(place: Place) -> DcpCheckpoint:
    """Opens a directory, or the `.metadata` in one."""
    directory = place.url if place.is_directory else parent(place.url)
    options: dict[str, Any] = {"verify": place.verify, "entry": place.entry, "wanted": place.wanted}
    return DcpCheckpoint(Place(directory, place.storage, **options))


class DcpCheckpoint(Checkpoint):
    """What `torch.distributed.checkpoint.save` wrote."""

    family: Family = "torch"

    def __init__(self, place: Place) -> None:
        """Reads the metadata.

        Raises:
            CorruptCheckpointError: it is damaged, or names files outside of the directory.
            UnsupportedError: it could run code, or the tensors are stored in another way.
            SettingsError: several mappings could be meant, or the one asked for is not there.
        """
        self.url: str = place.url
        self._storage = place.storage
        items = decode_metadata(self._read_metadata(), join(self.url, DCP_METADATA))
        self._tree = _tree(items, self.url)
        entry, self._tensors = _choose(self._tree, self.url, place.entry, place.wanted)
        self.entry: str = entry
        title = "torch.distributed checkpoint"
        self.format: str = f"{title}, entry {self.entry!r}" if self.entry else title
        self._files = OpenOnce[ByteSource]()
        for name in {chunk.file for tensor in self._tensors.values() for chunk in tensor.chunks}:
            below(self.url, name)  # every other is checked when it is opened

    def _read_metadata(self) -> bytes:
        source = self._storage.open(join(self.url, DCP_METADATA))
        if source.size > _MAX_METADATA:
            raise CorruptCheckpointError(f"{source.url} has {source.size:,} bytes, too many.")
        try:
            return source.read(0, source.size).tobytes()
        finally:
            source.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def averages(self) -> tuple[nested.Averages, ...]:
        return nested.find_averages(self._tree, StoredTensor, self.entry)

    def entries_beside(self) -> str:
        return nested.entries_beside(self._tree, StoredTensor, self.entry)

    def entries_alike(self, keys: Sequence[str]) -> tuple[str, ...]:
        return nested.entries_alike(self._tree, StoredTensor, self.entry, keys)

    def optimizer_states(self) -> tuple[SavedOptimizer, ...]:
        return self._optimizers[0]

    @functools.cached_property
    def _optimizers(self) -> tuple[tuple[SavedOptimizer, ...], dict[str, Any]]:
        """With what stands under their keys: where a tensor is stored, or a number as a tensor."""
        return find_optimizers(self._tree, StoredTensor, self._load_object)

    def _stored(self, key: str) -> StoredTensor | torch.Tensor | None:
        stored = self._tensors.get(key)
        if stored is None and may_be_slot(key):
            return cast("StoredTensor | torch.Tensor | None", self._optimizers[1].get(key))
        return stored

    def _chunks(self, key: str) -> tuple[Chunk, ...]:
        stored = self._stored(key)
        return stored.chunks if isinstance(stored, StoredTensor) else ()

    def _find(self, key: str) -> TensorSpec | None:
        stored = self._stored(key)
        if stored is None:
            return None
        shape, name = tuple(stored.shape), dtype_name(stored.dtype)
        unreadable = why_unreadable_dtype(stored.dtype)
        if unreadable:
            return TensorSpec(key, shape, None, name, unreadable=unreadable)
        return TensorSpec(key, shape, stored.dtype, name)

    def location(self, key: str) -> TensorLocation:
        self.spec(key)
        chunks = self._chunks(key)
        files = sorted({chunk.file for chunk in chunks})
        return TensorLocation(tuple(files), len(chunks) if len(chunks) > 1 else 0)

    def prefetch(self, keys: Sequence[str]) -> None:
        wanted = [chunk for key in keys for chunk in self._chunks(key)]
        by_file: dict[str, list[Range]] = {}
        for chunk in wanted:
            by_file.setdefault(chunk.file, []).append((chunk.offset, chunk.offset + chunk.length))
        for name, ranges in by_file.items():
            file = self._file(name)
            file.prefetch([r for r in ranges if r[1] <= file.size])

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        tensor = self._stored(spec.key)
        if not isinstance(tensor, StoredTensor):  # a number
            return cast("torch.Tensor", tensor)
        try:
            self._check_backed(tensor)
            slices.check_cover([chunk.box for chunk in tensor.chunks], tensor.shape)
            if [chunk.box.sizes for chunk in tensor.chunks] == [tensor.shape]:
                whole = self._load(tensor, tensor.chunks[0])
                return whole if rows is None else take_rows(whole, rows)
            return self._assemble(tensor, rows)
        except MalformedError as error:
            raise self._damaged(spec.key, error) from error

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        """The parts that have a row of those, where each part is of whole rows.

        The others stand for themselves by zeros without memory.
        """
        tensor = self._stored(spec.key)
        if not isinstance(tensor, StoredTensor) or not _is_in_rows(tensor):
            return super()._row_blocks(spec, rows)
        try:
            self._check_backed(tensor)
            slices.check_cover([chunk.box for chunk in tensor.chunks], tensor.shape)
            nothing = torch.zeros((), dtype=tensor.dtype)
            rows = rows.cpu()
            return [
                (
                    chunk.box.offsets[0],
                    self._load(tensor, chunk)
                    if chunk.box.holds(rows).any()
                    else nothing.expand(chunk.box.sizes),
                )
                for chunk in tensor.chunks
                if chunk.box.numel
            ]
        except MalformedError as error:
            raise self._damaged(spec.key, error) from error

    def _view_box(self, spec: TensorSpec, box: Box) -> torch.Tensor:
        """Of the parts those that have something of it."""
        tensor = self._stored(spec.key)
        if not isinstance(tensor, StoredTensor):
            return box.of(cast("torch.Tensor", tensor))
        try:
            self._check_backed(tensor)
            slices.check_cover([chunk.box for chunk in tensor.chunks], tensor.shape)
            touched = [(chunk, box.common(chunk.box)) for chunk in tensor.chunks]
            found = [(chunk, common) for chunk, common in touched if common is not None]
            if len(found) == 1:
                return box.within(found[0][0].box).of(self._load(tensor, found[0][0]))
            out = torch.empty(box.sizes, dtype=tensor.dtype)
            for chunk, common in found:
                piece = common.within(chunk.box).of(self._load(tensor, chunk))
                as_bits(common.within(box).of(out)).copy_(as_bits(piece))
            return out
        except MalformedError as error:
            raise self._damaged(spec.key, error) from error

    def _check_backed(self, tensor: StoredTensor) -> None:
        """A tensor of any size could be claimed, for which memory would be set aside."""
        claimed = sum(chunk.box.numel for chunk in tensor.chunks) * tensor.dtype.itemsize
        present = sum(self._file(name).size for name in {chunk.file for chunk in tensor.chunks})
        if claimed > present:
            raise MalformedError(f"its parts claim {claimed:,} bytes, its files hold {present:,}")

    def _assemble(self, tensor: StoredTensor, rows: torch.Tensor | None) -> torch.Tensor:
        shape = tensor.shape if rows is None else (len(rows), *tensor.shape[1:])
        out = torch.empty(shape, dtype=tensor.dtype)
        for chunk in tensor.chunks:
            if rows is None or chunk.box.holds(rows).any():
                piece = self._load(tensor, chunk)
                slices.assemble(chunk.box, as_bits(piece), as_bits(out), rows)
        return out

    def _load(self, tensor: StoredTensor, chunk: Chunk) -> torch.Tensor:
        loaded = self._load_part(tensor.key, chunk.file, chunk.offset, chunk.length)
        if not isinstance(loaded, torch.Tensor):
            raise MalformedError(f"{chunk.file} holds a {type(loaded).__name__} in its place")
        if why_unreadable(loaded):
            raise MalformedError(f"what {chunk.file} holds in its place {why_unreadable(loaded)}")
        if tuple(loaded.shape) != chunk.box.sizes or loaded.dtype != tensor.dtype:
            raise MalformedError(
                f"{chunk.file} holds {loaded.dtype} of shape {tuple(loaded.shape)} in place of "
                f"{tensor.dtype} of shape {chunk.box.sizes}"
            )
        return plain(loaded)

    def _load_part(self, key: str, name: str, offset: int, length: int) -> Any:
        source = self._file(name)
        if offset + length > source.size:
            raise MalformedError(f"{name} has {source.size:,} bytes and ends before it does")
        part = Window(source, offset, length, key)
        part.prefetch([(0, part.size)])
        return load_tensors(cast("IO[bytes]", SourceFile(part)), part.url)

    def _load_object(self, stored: Any) -> Any:
        """What `torch.save` was given; None if it cannot be read, as if it were not there."""
        if not isinstance(stored, StoredObject) or stored.place is None:
            return None
        if stored.place[2] > _MAX_OBJECT:
            return None
        try:
            return self._load_part(stored.key, *stored.place)
        except (WarmStartError, MalformedError, FileNotFoundError):  # it may be anything
            return None

    def _file(self, name: str) -> ByteSource:
        return self._files.get(name, lambda: self._open_file(below(self.url, name)))

    def _open_file(self, url: str) -> ByteSource:
        with self._storage.named_by(join(self.url, DCP_METADATA), url):
            return self._storage.open(url)

    def _close(self) -> None:
        self._files.close()


class DcpListing(Checkpoint):
    """What the metadata lists that torch has read: names, shapes and where tensors are cut.

    Its tensors are not read through it.
    """

    family: Family = "torch"
    format = "torch.distributed checkpoint"

    def __init__(
        self, metadata: Any, entry: str | None = None, wanted: Collection[str] = ()
    ) -> None:
        """Looks at the names.

        Args:
            metadata: torch's `Metadata`.
            entry: Which mapping of a nested state_dict is meant.
            wanted: The names of a model's tensors, which tell what is meant of several.

        Raises SettingsError: several mappings could be meant, or the one asked for is not there.
        """
        self.url = "<torch.distributed.checkpoint.load>"
        paths = metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {}
        items = [
            _listed(key, tuple(map(str, paths.get(key) or (key,))), entry_of)
            for key, entry_of in metadata.state_dict_metadata.items()
        ]
        self._names = {item.path: item.key for item in items}
        _, self._tensors = _choose(_tree(items, self.url), self.url, entry, wanted)

    def name_of(self, key: str) -> str:
        """What torch calls a tensor."""
        return self._names[self._tensors[key].path]

    def boxes_of(self, key: str) -> list[Box]:
        """The parts that a tensor is stored in."""
        return [chunk.box for chunk in self._tensors[key].chunks]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def local_files(self, keys: Iterable[str]) -> list[str]:  # noqa: ARG002
        return []

    def optimizer_states(self) -> tuple[SavedOptimizer, ...]:
        return ()

    def _find(self, key: str) -> TensorSpec | None:
        stored = self._tensors.get(key)
        if stored is None:
            return None
        unreadable = why_unreadable_dtype(stored.dtype)
        dtype = None if unreadable else stored.dtype
        name = dtype_name(stored.dtype)
        return TensorSpec(key, stored.shape, dtype, name, unreadable=unreadable)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:  # noqa: ARG002
        raise UnsupportedError(f"{spec.key!r} is read by torch.distributed.checkpoint.load only.")


def _listed(key: str, path: tuple[str, ...], found: Any) -> StoredTensor | StoredObject:
    """An entry of torch's metadata; bytes are listed as what they are, and never read."""
    if not hasattr(found, "chunks"):
        return StoredObject(key, path)
    chunks = (
        Chunk(Box(tuple(chunk.offsets), tuple(chunk.sizes)), "", 0, 0) for chunk in found.chunks
    )
    return StoredTensor(key, path, tuple(found.size), found.properties.dtype, tuple(chunks))


def _is_in_rows(tensor: StoredTensor) -> bool:
    return bool(tensor.shape) and all(
        chunk.box.sizes[1:] == tensor.shape[1:] for chunk in tensor.chunks
    )


def _choose(
    tree: Mapping[str, Any], url: str, entry: str | None, wanted: Collection[str]
) -> tuple[str, dict[str, StoredTensor]]:
    """The tensors of the mapping that is meant, under their names in it.

    torch flattens nested state_dicts, and keeps the paths.
    """
    path, chosen = nested.choose(tree, url, entry, StoredTensor, wanted)
    return path, dict(_leaves(chosen, ""))


def _tree(items: Sequence[StoredTensor | StoredObject], url: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for item in items:
        node = tree
        for part in item.path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise CorruptCheckpointError(f"{url}: {item.key!r} lies in what is no mapping.")
        if item.path[-1] in node:
            raise CorruptCheckpointError(f"{url}: {item.key!r} is where something else is, too.")
        node[item.path[-1]] = item
    return tree


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, StoredTensor]]:
    for name, inside in node.items():
        if isinstance(inside, StoredTensor):
            yield prefix + name, replace(inside, key=prefix + name)
        elif isinstance(inside, Mapping):
            yield from _leaves(inside, f"{prefix}{name}.")
