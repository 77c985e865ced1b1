"""Tensors stored in pieces: partitioned variables, and what MaxShardSizePolicy cuts up.

A slice is a box in the full tensor. The names under which TensorFlow files slices are an
order-preserving code (tensorflow `core/lib/strings/ordered_code.cc`, `core/util/saved_tensor_slice_
util.cc`); they are only ever written here, never parsed, because the full tensor lists its slices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import as_bits
from torch_warmstart.formats.base import MalformedError

_NUMPY_RANK = 32  # the most dimensions before numpy 2
FULL = -1  # TF's length of an extent that spans its whole dimension
_ESCAPES = {b"\x00": b"\x00\xff", b"\xff": b"\xff\x00"}

Extent = tuple[int, int]  # start, length (or FULL)


def resolve_box(extents: Sequence[Extent], shape: tuple[int, ...]) -> Box:
    """The box of a slice in a tensor of `shape`; raises MalformedError if it sticks out."""
    if len(extents) != len(shape):
        raise MalformedError(f"a slice of rank {len(extents)} in a tensor of rank {len(shape)}")
    offsets, sizes = [], []
    for (start, length), size in zip(extents, shape, strict=True):
        actual = size if length == FULL else length
        if start < 0 or actual < 0 or start + actual > size:
            raise MalformedError(f"slice {start},{actual} lies outside a dimension of {size}")
        offsets.append(start)
        sizes.append(actual)
    return Box(tuple(offsets), tuple(sizes))


def check_cover(boxes: Sequence[Box], shape: tuple[int, ...]) -> None:
    """Raises MalformedError unless the boxes cover a tensor of `shape` exactly once.

    Boxes as large together as the tensor cover it exactly when none overlaps another.
    """
    total, full = sum(box.numel for box in boxes), math.prod(shape)
    if total != full:
        raise MalformedError(f"its slices hold {total} elements of {full}")
    boxes = [box for box in boxes if box.numel]
    dim = _only_cut_dimension(boxes, shape)
    if dim is None:
        _check_disjoint(boxes, shape)
        return
    end = 0
    for box in sorted(boxes, key=lambda box: box.offsets[dim]):
        if box.offsets[dim] < end:
            raise MalformedError(f"its slices overlap in dimension {dim} at {box.offsets[dim]}")
        end = box.offsets[dim] + box.sizes[dim]


def assemble(box: Box, piece: torch.Tensor, out: torch.Tensor, rows: torch.Tensor | None) -> None:
    """Copies a piece to its place in `out`: the full tensor, or the given rows of it."""
    if rows is None:
        out[box.index] = piece
        return
    inner: tuple[torch.Tensor | slice, ...] = (box.holds(rows), *box.index[1:])
    out[inner] = piece.index_select(0, box.rows_within(rows))


def join(
    boxes: Sequence[Box],
    pieces: Iterable[torch.Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    rows: torch.Tensor | None,
) -> torch.Tensor:
    """The tensor that pieces make, or some of its rows; `check_cover` has passed."""
    out = torch.empty(shape if rows is None else (len(rows), *shape[1:]), dtype=dtype)
    for box, piece in zip(boxes, pieces, strict=True):
        assemble(box, as_bits(piece), as_bits(out), rows)
    return out


def join_strings(
    boxes: Sequence[Box],
    pieces: Iterable[list[bytes]],
    shape: tuple[int, ...],
    rows: torch.Tensor | None,
) -> list[bytes]:
    """As `join`, for string tensors, which are flat lists in C order."""
    if len(shape) > _NUMPY_RANK:
        raise MalformedError(f"strings kept in slices of rank {len(shape)}")
    whole = np.empty(shape, dtype=object)
    for box, piece in zip(boxes, pieces, strict=True):
        flat = np.empty(box.numel, dtype=object)
        flat[:] = piece
        whole[box.index] = flat.reshape(box.sizes)
    return string_rows(whole.reshape(-1).tolist(), shape, rows)


def string_rows(
    strings: list[bytes], shape: tuple[int, ...], rows: torch.Tensor | None
) -> list[bytes]:
    """The given rows of a string tensor, or all of it."""
    if rows is None:
        return strings
    per_row = math.prod(shape[1:])
    return [s for row in rows.tolist() for s in strings[row * per_row : (row + 1) * per_row]]


def encode_slice_key(name: bytes, extents: Sequence[Extent]) -> bytes:
    """The table key of one slice of a tensor."""
    parts = [_encode_unsigned(0), _encode_string(name), _encode_unsigned(len(extents))]
    for start, length in extents:
        parts += [_encode_signed(start), _encode_signed(length)]
    return b"".join(parts)


def _only_cut_dimension(boxes: Sequence[Box], shape: tuple[int, ...]) -> int | None:
    """The one dimension the tensor is cut in, if there is one: nearly every real tensor."""
    cut = {dim for box in boxes for dim, size in enumerate(shape) if box.sizes[dim] != size}
    if len(cut) > 1 or not shape:
        return None
    return cut.pop() if cut else 0


def _check_disjoint(boxes: Sequence[Box], shape: tuple[int, ...]) -> None:
    taken = torch.zeros(shape, dtype=torch.bool)
    for box in boxes:
        if taken[box.index].any():
            raise MalformedError(f"its slices overlap at {box.offsets}")
        taken[box.index] = True


def _encode_unsigned(value: int) -> bytes:
    payload = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(payload)]) + payload


def _encode_string(text: bytes) -> bytes:
    return re.sub(rb"[\x00\xff]", lambda match: _ESCAPES[match[0]], text) + b"\x00\x01"


def _encode_signed(value: int) -> bytes:
    """Of n bytes 7n-1 bits hold the value; the run of leading ones tells n."""
    magnitude = ~value if value < 0 else value
    size = 1
    while magnitude >= 1 << (7 * size - 1):
        size += 1
    bits = 8 * size
    code = ((1 << size) - 1) << (bits - size) | magnitude
    if value < 0:  # a negative number is the complement of the code of its complement
        code ^= (1 << bits) - 1
    return code.to_bytes(size, "big")
