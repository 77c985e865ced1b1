"""What the tests of torch.distributed.checkpoint's directories share."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

STATE = {
    "layer.weight": torch.arange(12.0).reshape(4, 3),
    "layer.bias": torch.rand(3).to(torch.bfloat16),
    "bytes": torch.arange(5).to(torch.uint8),
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 3),
}


def save(contents: dict[str, Any], folder: Path) -> Path:
    dcp.save(contents, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


class Writer:
    """Writes tensors in parts, as several processes do."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.metadata = Metadata({}, planner_data={}, storage_data={})

    def add(self, key: str, tensor: torch.Tensor, *boxes: tuple[Any, Any], **lies: Any) -> None:
        """Adds a tensor, cut into boxes of offsets and sizes, each in a file of its own."""
        chunks = []
        for offsets, sizes in boxes:
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            index = tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))
            info = self._append(f"__{len(chunks)}_0.distcp", tensor[index].clone())
            self.metadata.storage_data[MetadataIndex(key, offsets)] = info
        properties = TensorProperties(dtype=lies.get("dtype", tensor.dtype))
        size = torch.Size(lies.get("size", tensor.shape))
        self.metadata.state_dict_metadata[key] = TensorStorageMetadata(properties, size, chunks)
        self.metadata.planner_data[key] = (key,)

    def _append(self, name: str, tensor: torch.Tensor) -> _StorageInfo:
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        with (self.folder / name).open("ab") as file:
            offset = file.tell()
            file.write(buffer.getvalue())
        return _StorageInfo(name, offset, len(buffer.getvalue()))

    def finish(self, **changes: Any) -> Path:
        for name, value in changes.items():
            setattr(self.metadata, name, value)
        (self.folder / ".metadata").write_bytes(pickle.dumps(self.metadata))
        return self.folder


ROWS = [((0, 0), (2, 8)), ((2, 0), (3, 8)), ((5, 0), (1, 8))]
FULL = torch.arange(48.0).reshape(6, 8)
