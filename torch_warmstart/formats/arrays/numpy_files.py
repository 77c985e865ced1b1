"""numpy's `.npy` (one array) and `.npz` (a zip of them). Pickles inside are never loaded.

An array says nothing of the framework it came from. Its name does where it is one of TensorFlow's
(`families`); a `.npy`, which has none, is taken as it is.

Arrays are views of the mapped file where possible. Compressed members of a `.npz` are read whole.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.dtypes import take_rows
from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError
from torch_warmstart.formats.arrays.numpy_dtypes import tensor_of_bytes, torch_dtype
from torch_warmstart.formats.arrays.zip_members import ZipMembers
from torch_warmstart.formats.base import Block, Checkpoint, Family, TensorSpec
from torch_warmstart.formats.families import family_of
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import NPY_SUFFIX
from torch_warmstart.formats.rows import read_rows
from torch_warmstart.storage import NPY, Bytes, ByteSource, base_name
from torch_warmstart.values import frozen

_LENGTH_SIZES = {1: 2, 2: 4, 3: 4}  # bytes of the header's length, by version
_MAX_HEADER = 10_000  # numpy's own limit for what it hands to literal_eval
_HEAD = len(NPY) + 2 + 4 + _MAX_HEADER
_USUAL_HEAD = 512  # bytes: header, name and extra field of nearly every member
_MAX_RANK = 64  # numpy's limit
_MAX_BYTES = 1 << 62  # an empty array may have any other size, but torch has to hold the strides
_DTYPE = re.compile(r"[<>|=]?[?a-zA-Z]\d{0,9}(\[\w+\])?")  # what numpy writes for one field


def open_npy(place: Place) -> NpyCheckpoint:
    """Opens a `.npy` file."""
    return NpyCheckpoint(place.url, place.source)


def open_npz(place: Place) -> NpzCheckpoint:
    """Opens a `.npz` file."""
    return NpzCheckpoint(place.url, place.source, verify=place.verify)


@frozen
class ArrayHeader:
    """What stands before an array's bytes."""

    offset: int  # of the bytes, behind it
    dtype: np.dtype[Any] | None  # None: structured
    fortran_order: bool
    shape: tuple[int, ...]

    def spec(self, key: str) -> TensorSpec:
        """The array as a tensor of a checkpoint."""
        if self.dtype is None:
            return TensorSpec(key, self.shape, None, "structured")
        return TensorSpec(key, self.shape, torch_dtype(self.dtype), str(self.dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else 0)


class NpyCheckpoint(Checkpoint):
    """One array, under the file's name without `.npy`."""

    format = "numpy .npy file"
    family: Family = "torch"

    def __init__(self, url: str, source: ByteSource) -> None:
        """Reads the header; raises CorruptCheckpointError."""
        self.url: str = url
        self._source = source
        try:
            header = _parse_header(source.read(0, min(_HEAD, source.size)).tobytes())
            _check_size(header, source.size)
        except ValueError as error:
            raise CorruptCheckpointError(f"{url} is no valid .npy file: {error}.") from error
        if header.dtype is not None and header.dtype.hasobject:
            raise UnsupportedError(
                f"{url} holds pickled Python objects (as np.save writes a dict), which could run "
                "code, so that nothing is unpickled. Where it comes from, save the arrays by their "
                "names: np.savez('weights.npz', **arrays)."
            )
        self._headers = {base_name(url).removesuffix(NPY_SUFFIX): header}

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def _find(self, key: str) -> TensorSpec | None:
        header = self._headers.get(key)
        return None if header is None else header.spec(key)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        return _read_array(self._source, self._headers[spec.key], rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        return [(0, _view_array(self._source, self._headers[spec.key], rows))]

    def _close(self) -> None:
        self._source.close()


class NpzCheckpoint(Checkpoint):
    """Arrays by name. Members that are no arrays are left out, as numpy leaves them as bytes."""

    format = "numpy .npz file"
    family: Family
    has_checksums = True

    def __init__(self, url: str, source: ByteSource, *, verify: bool) -> None:
        """Reads the directory and the arrays' headers; raises CorruptCheckpointError."""
        self.url: str = url
        self._source, self._verify = source, verify
        self._members = ZipMembers(source)
        names = [name for name in self._members.infos if name.endswith(NPY_SUFFIX)]
        self._members.prefetch_heads(names, _USUAL_HEAD)
        self._headers = {name.removesuffix(NPY_SUFFIX): self._read_header(name) for name in names}
        self.family = family_of(self._headers)
        self._verified: set[str] = set()

    def _read_header(self, name: str) -> ArrayHeader:
        try:
            try:
                header = _parse_header(self._members.head(name, _USUAL_HEAD))
            except _CutOffError:
                header = _parse_header(self._members.head(name, _HEAD))
            _check_size(header, self._members.infos[name].file_size)
            return header
        except ValueError as error:
            raise CorruptCheckpointError(
                f"{self.url}: member {name!r} is no valid array: {error}."
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def _find(self, key: str) -> TensorSpec | None:
        header = self._headers.get(key)
        return None if header is None else header.spec(key)

    def verify(self, key: str) -> None:
        self.spec(key)
        if key not in self._verified:
            self._members.verify(key + NPY_SUFFIX)
            self._verified.add(key)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        if rows is None and self._verify:
            self.verify(spec.key)
        source = self._members.open(spec.key + NPY_SUFFIX)
        return _read_array(source, self._headers[spec.key], rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        source = self._members.open(spec.key + NPY_SUFFIX)
        return [(0, _view_array(source, self._headers[spec.key], rows))]

    def _close(self) -> None:
        self._source.close()


class _CutOffError(ValueError):
    """The header goes on behind the bytes given."""


def _parse_header(head: bytes) -> ArrayHeader:
    """Reads what stands before an array; raises ValueError.

    Source: numpy `lib/_format_impl.py`, versions 1 to 3.
    """
    if head[: len(NPY)] != NPY or len(head) < len(NPY) + 2:
        raise ValueError("it does not begin with numpy's magic bytes")
    length_size = _LENGTH_SIZES.get(head[len(NPY)])
    if length_size is None:
        raise ValueError(f"its version is {head[len(NPY)]}, which is not known")
    start = len(NPY) + 2 + length_size
    length = int.from_bytes(head[start - length_size : start], "little")
    if length > _MAX_HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    if len(head) < start + length:
        raise _CutOffError("its header is cut off")
    text = head[start : start + length].decode("utf-8" if head[len(NPY)] == 3 else "latin1")
    return _make_header(_evaluate(text), start + length)


def _evaluate(text: str) -> dict[str, Any]:
    try:
        fields = ast.literal_eval(text.strip())  # literals only; the length is bounded
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("its header is no Python literal") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header does not hold descr, fortran_order and shape")
    return fields


def _make_header(fields: dict[str, Any], offset: int) -> ArrayHeader:
    shape, descr, fortran_order = fields["shape"], fields["descr"], fields["fortran_order"]
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_RANK
        or not all(type(size) is int and size >= 0 for size in shape)
        or math.prod(size or 1 for size in shape) > _MAX_BYTES
    ):
        raise ValueError(f"its shape is {str(shape)[:80]}")
    if not isinstance(fortran_order, bool):
        raise ValueError("its order is neither C nor Fortran")
    if not isinstance(descr, str):
        return ArrayHeader(offset, None, fortran_order, shape)
    try:
        if not _DTYPE.fullmatch(descr):
            raise TypeError(descr)
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ValueError(f"its dtype is {descr[:80]!r}") from error
    return ArrayHeader(offset, dtype, fortran_order, shape)


def _check_size(header: ArrayHeader, size: int) -> None:
    if header.dtype is None or torch_dtype(header.dtype) is None:
        return  # it is not read; a pickle has any size
    if header.offset + header.nbytes != size:
        raise ValueError(_of_another_size(header, size))


def array_of_npy(raw: Bytes) -> npt.NDArray[Any]:
    """The array of a whole file, where its bytes are; raises ValueError for what is none of plain.

    Text too, which no tensor holds.
    """
    header = _parse_header(raw[:_HEAD].tobytes())
    dtype = header.dtype
    if dtype is None or dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"its entries are {'structured' if dtype is None else dtype}")
    if header.offset + header.nbytes != len(raw):
        raise ValueError(_of_another_size(header, len(raw)))
    array = np.frombuffer(raw, dtype, math.prod(header.shape), header.offset)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")


def _of_another_size(header: ArrayHeader, size: int) -> str:
    return (
        f"{header.dtype} of shape {list(header.shape)} takes {header.nbytes:,} bytes behind the "
        f"header, but {size - header.offset:,} are there"
    )


def _read_array(source: ByteSource, header: ArrayHeader, rows: torch.Tensor | None) -> torch.Tensor:
    tensor = _view_array(source, header, rows)
    return tensor if rows is None else take_rows(tensor, rows)


def _view_array(source: ByteSource, header: ArrayHeader, rows: torch.Tensor | None) -> torch.Tensor:
    """The array on top of the file; with `rows`, only those need to be there."""
    assert header.dtype is not None  # others were refused as not for torch
    if rows is None or header.fortran_order:
        raw = source.read(header.offset, header.nbytes)
    else:
        row_bytes = header.nbytes // max(1, header.shape[0])
        raw = read_rows(source, header.offset, header.nbytes, row_bytes, rows)
    if not header.fortran_order:
        return tensor_of_bytes(raw, header.dtype, header.shape)
    backwards = tensor_of_bytes(raw, header.dtype, header.shape[::-1])
    return backwards.permute(*range(backwards.ndim)[::-1])
