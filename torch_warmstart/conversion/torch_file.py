"""Writes what `torch.load` reads, tensor by tensor: `torch.save` wants all of them at once.

A zip of a pickle, which says what each tensor is, and a member for each tensor's bytes. Members
begin at multiples of 64, so that the file can be mapped.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import torch

from torch_warmstart.conversion.pieces import Piece

_ROOT = "archive"
_ALIGNMENT = 64
_FIXED_HEADER, _ZIP64_FIELD = 30, 20  # bytes of a zip member's header
_PADDING = b"FB"  # torch's mark for a field that only fills
_FROM_ZIP64 = 1 << 31
_DATE = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is written


class _Storage:
    """What the pickle says instead of a tensor's bytes."""

    def __init__(self, number: int, piece: Piece) -> None:
        self.number, self.piece = number, piece


class _Tensor:
    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = storage, shape


class _Pickler(pickle.Pickler):
    """Says of tensors what torch's own pickles say."""

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        piece, legacy = obj.piece, _legacy(obj.piece.dtype)
        if legacy is None:
            return ("storage", torch.UntypedStorage, str(obj.number), "cpu", piece.nbytes)
        return ("storage", legacy, str(obj.number), "cpu", piece.numel)

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, _Tensor):
            return NotImplemented
        strides = torch.empty(obj.shape, device="meta").stride()
        arguments: tuple[Any, ...] = (obj.storage, 0, obj.shape, strides, False, OrderedDict())
        dtype = obj.storage.piece.dtype
        if _legacy(dtype) is None:
            return torch._utils._rebuild_tensor_v3, (*arguments, dtype)
        return torch._utils._rebuild_tensor_v2, arguments


def _legacy(dtype: torch.dtype) -> Any:
    """The class of a storage of a dtype; None for newer dtypes, which have none."""
    name = torch.storage._dtype_to_storage_type_map().get(dtype)
    return None if name is None else getattr(torch, name)


def write(
    file: IO[bytes],
    pieces: Sequence[Piece],
    metadata: Mapping[str, Any] | None,
    advance: Callable[[str, int], None],
) -> None:
    """Writes the tensors, each read when it is its turn; those that are one tensor once.

    Args:
        file: Where to.
        pieces: The tensors.
        metadata: What torch keeps in `state_dict()._metadata`.
        advance: Called with what has been written.
    """
    storages: dict[object, _Storage] = {}
    state: Any = OrderedDict()
    for piece in pieces:
        one = piece.key if piece.storage is None else (piece.storage, piece.shape, piece.dtype)
        storage = storages.setdefault(one, _Storage(len(storages), piece))
        state[piece.key] = _Tensor(storage, piece.shape)
    if metadata is not None:
        state._metadata = metadata
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=2).dump(state)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member("data.pkl", 0, 0), pickled.getvalue())
        archive.writestr(_member("byteorder", 0, 0), b"little")
        for storage in storages.values():
            _write_member(archive, file, storage, advance)
        archive.writestr(_member("version", 0, 0), b"3\n")


def _write_member(
    archive: zipfile.ZipFile,
    file: IO[bytes],
    storage: _Storage,
    advance: Callable[[str, int], None],
) -> None:
    piece = storage.piece
    is_large = piece.nbytes >= _FROM_ZIP64
    info = _member(f"data/{storage.number}", file.tell(), _ZIP64_FIELD if is_large else 0)
    info.file_size = piece.nbytes
    with archive.open(info, "w", force_zip64=is_large) as member:
        for block in piece.blocks():
            member.write(block)
            advance(piece.key, len(block))


def _member(name: str, begin: int, more: int) -> zipfile.ZipInfo:
    """A member whose bytes begin at a multiple of 64, if its header begins at `begin`."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", _DATE)
    header = begin + _FIXED_HEADER + len(info.filename) + more + 4
    padding = -header % _ALIGNMENT
    info.extra = _PADDING + struct.pack("<H", padding) + bytes(padding)
    return info
