"""Directories of torch.distributed.checkpoint: `.metadata` and the `.distcp` files it refers to.

Neither a process group nor torch's own reader is needed: the metadata says which part of which
tensor lies where, and each part is what `torch.save` makes of one tensor, read as every torch file
is. Of a tensor cut in parts, `rows` read only the parts that hold them. It works behind URLs too,
one part of a tensor at a time.

Source: torch `distributed/checkpoint/filesystem.py`, `metadata.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any, cast

import torch

from torch_warmstart.bits import as_bits, dtype_name, take_rows
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats import nested, slices
from torch_warmstart.formats.base import Checkpoint, Family, TensorLocation, TensorSpec
from torch_warmstart.formats.dcp_metadata import (
    Chunk,
    StoredObject,
    StoredTensor,
    decode_metadata,
)
from torch_warmstart.formats.place import Place, SourceFile
from torch_warmstart.formats.torch_file import load_tensors
from torch_warmstart.formats.wire import WireError
from torch_warmstart.formats.zip_members import Window
from torch_warmstart.ranges import Range
from torch_warmstart.storage import ByteSource, base_name, join, join_sibling, named_by, parent

METADATA = ".metadata"
_MAX_METADATA = 1 << 30  # bytes


def sniff(place: Place) -> str | None:
    """Whether it is a directory with metadata, or that file in it."""
    if place.is_directory:
        return None if METADATA in place.names else f"no {METADATA} in the directory"
    found = base_name(place.url) == METADATA and place.is_file
    return None if found else f"not a directory with a file {METADATA}"


def open_place(place: Place) -> DcpCheckpoint:
    """Opens a directory, or the `.metadata` in one."""
    directory = place.url if place.is_directory else parent(place.url)
    return DcpCheckpoint(Place(directory, place.storage, verify=place.verify, entry=place.entry))


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
        self.url = place.url
        self._storage = place.storage
        items = decode_metadata(self._read_metadata(), join(self.url, METADATA))
        path, self._tensors = _choose(items, self.url, place.entry)
        title = "torch.distributed checkpoint"
        self.format = f"{title}, entry {path!r}" if path else title
        self._files: dict[str, ByteSource] = {}
        for name in {chunk.file for tensor in self._tensors.values() for chunk in tensor.chunks}:
            join_sibling(self.url, name)

    def _read_metadata(self) -> bytes:
        source = self._storage.open(join(self.url, METADATA))
        if source.size > _MAX_METADATA:
            raise CorruptCheckpointError(f"{source.url} has {source.size:,} bytes, too many.")
        try:
            return source.read(0, source.size).tobytes()
        finally:
            source.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def _find(self, key: str) -> TensorSpec | None:
        tensor = self._tensors.get(key)
        if tensor is None:
            return None
        name = dtype_name(tensor.dtype)
        return TensorSpec(key, tensor.shape, tensor.dtype, name)

    def location(self, key: str) -> TensorLocation:
        self.spec(key)
        chunks = self._tensors[key].chunks
        files = sorted({chunk.file for chunk in chunks})
        return TensorLocation(tuple(files), len(chunks) if len(chunks) > 1 else 0)

    def prefetch(self, keys: Sequence[str]) -> None:
        wanted = [chunk for key in keys for chunk in self._tensors[key].chunks]
        by_file: dict[str, list[Range]] = {}
        for chunk in wanted:
            by_file.setdefault(chunk.file, []).append((chunk.offset, chunk.offset + chunk.length))
        for name, ranges in by_file.items():
            file = self._file(name)
            file.prefetch([r for r in ranges if r[1] <= file.size])

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        tensor = self._tensors[spec.key]
        try:
            self._check_backed(tensor)
            slices.check_cover([chunk.box for chunk in tensor.chunks], tensor.shape)
            if [chunk.box.sizes for chunk in tensor.chunks] == [tensor.shape]:
                whole = self._load(tensor, tensor.chunks[0])
                return whole if rows is None else take_rows(whole, rows)
            return self._assemble(tensor, rows)
        except WireError as error:
            raise CorruptCheckpointError(
                f"{self.url}: tensor {spec.key!r} is damaged: {error}."
            ) from error

    def _check_backed(self, tensor: StoredTensor) -> None:
        """A tensor of any size could be claimed, for which memory would be set aside."""
        claimed = sum(chunk.box.numel for chunk in tensor.chunks) * tensor.dtype.itemsize
        present = sum(self._file(name).size for name in {chunk.file for chunk in tensor.chunks})
        if claimed > present:
            raise WireError(f"its parts claim {claimed:,} bytes, its files hold {present:,}")

    def _assemble(self, tensor: StoredTensor, rows: torch.Tensor | None) -> torch.Tensor:
        shape = tensor.shape if rows is None else (len(rows), *tensor.shape[1:])
        out = torch.empty(shape, dtype=tensor.dtype)
        for chunk in tensor.chunks:
            if rows is None or chunk.box.holds(rows).any():
                piece = self._load(tensor, chunk)
                slices.assemble(chunk.box, as_bits(piece), as_bits(out), rows)
        return out

    def _load(self, tensor: StoredTensor, chunk: Chunk) -> torch.Tensor:
        source = self._file(chunk.file)
        if chunk.offset + chunk.length > source.size:
            raise WireError(f"{chunk.file} has {source.size:,} bytes and ends before it does")
        part = Window(source, chunk.offset, chunk.length, tensor.key)
        part.prefetch([(0, part.size)])
        loaded = load_tensors(cast("IO[bytes]", SourceFile(part)), part.url)
        if not isinstance(loaded, torch.Tensor):
            raise WireError(f"{chunk.file} holds a {type(loaded).__name__} in its place")
        if tuple(loaded.shape) != chunk.box.sizes or loaded.dtype != tensor.dtype:
            raise WireError(
                f"{chunk.file} holds {loaded.dtype} of shape {tuple(loaded.shape)} in place of "
                f"{tensor.dtype} of shape {chunk.box.sizes}"
            )
        return loaded.detach()

    def _file(self, name: str) -> ByteSource:
        if name not in self._files:
            url = join_sibling(self.url, name)
            with named_by(join(self.url, METADATA), url):
                self._files[name] = self._storage.open(url)
        return self._files[name]

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()


def _choose(
    items: Sequence[StoredTensor | StoredObject], url: str, entry: str | None
) -> tuple[str, dict[str, StoredTensor]]:
    """The tensors of the mapping that is meant, under their names in it.

    torch flattens nested state_dicts, and keeps the paths.
    """
    path, chosen = nested.choose(_tree(items, url), url, entry, StoredTensor)
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
