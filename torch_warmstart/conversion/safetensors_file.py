"""Writes a `.safetensors` file: the length of a header, the header as JSON, and the bytes.

Larger elements come first, as other writers have it, so that every tensor is aligned. The metadata
say whose layouts the tensors have, since the format does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import IO

import torch

from torch_warmstart.conversion.pieces import Piece
from torch_warmstart.errors import UnsupportedError

_WORDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
_ALIGNMENT = 8  # of the header's end
_LONGEST_HEADER = 100_000_000  # bytes that other readers accept


def can_hold(dtype: torch.dtype) -> bool:
    """Whether the format has a word for it."""
    return dtype in _WORDS


def write(
    file: IO[bytes], pieces: Sequence[Piece], family: str, advance: Callable[[str, int], None]
) -> None:
    """Writes the tensors, each read when it is its turn.

    Raises:
        UnsupportedError: there are more names than the format's header may hold.
    """
    ordered = sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.key))
    header: dict[str, object] = {"__metadata__": {"format": family}}
    at = 0
    for piece in ordered:
        header[piece.key] = {
            "dtype": _WORDS[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [at, at + piece.nbytes],
        }
        at += piece.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _LONGEST_HEADER:
        raise UnsupportedError(
            f"The names of {len(pieces):,} tensors are more than a .safetensors file may have in "
            f"its header: {len(text):,} bytes, and {_LONGEST_HEADER:,} are allowed. Write a .pt."
        )
    file.write(len(text).to_bytes(8, "little") + text)
    for piece in ordered:
        for block in piece.blocks():
            file.write(block)
            advance(piece.key, len(block))
