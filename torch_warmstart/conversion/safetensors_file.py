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
from torch_warmstart.formats import FAMILY_KEY, FAMILY_WORDS, Family
from torch_warmstart.formats.huggingface import DTYPES, MAX_HEADER

_OF_FEW = "FNUZ"  # dtypes that other readers do not know
_WORDS = {dtype: word for word, dtype in DTYPES.items() if not word.endswith(_OF_FEW)}
_ALIGNMENT = 8  # of the header's end


def can_hold(dtype: torch.dtype) -> bool:
    """Whether the format has a word for it."""
    return dtype in _WORDS


def write(
    file: IO[bytes], pieces: Sequence[Piece], family: Family, advance: Callable[[str, int], None]
) -> None:
    """Writes the tensors, each read when it is its turn, and their family where it is known.

    Raises:
        UnsupportedError: there are more names than the format's header may hold.
    """
    ordered = sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.key))
    word = FAMILY_WORDS.get(family)
    header: dict[str, object] = {"__metadata__": {FAMILY_KEY: word} if word else {}}
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
    if len(text) > MAX_HEADER:
        raise UnsupportedError(
            f"The names of {len(pieces):,} tensors are more than a .safetensors file may have in "
            f"its header: {len(text):,} bytes, and {MAX_HEADER:,} are allowed. Write a .pt."
        )
    file.write(len(text).to_bytes(8, "little") + text)
    for piece in ordered:
        for block in piece.blocks():
            file.write(block)
            advance(piece.key, len(block))
