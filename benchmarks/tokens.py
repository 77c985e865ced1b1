"""Vocabulary files: shuffled tokens of about 20 bytes, of which a known share stays.

Token ids decide everything: the old vocabulary has the ids `[0, rows)`, the new one a window that
begins later. What must come out of a join or of a warm start follows from the ids alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

MISSING = -1  # of a new token that is not an old one
_SHORTEST, _LONGEST = 16, 24  # bytes of a token
_NIBBLES = 12  # the first letters of a token spell a 48-bit number that no other token has
_SPREAD = 0x9E3779B97F4B  # odd, so multiplying by it modulo 2**48 gives different numbers
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123456789", dtype=np.uint8)
_BLOCK = 1 << 19  # tokens written at a time

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenChange:
    """Two vocabularies as token ids, shuffled by a seed."""

    old_rows: int
    new_rows: int
    overlap: float  # the share of the new tokens that are old ones
    seed: int = 1

    @cached_property
    def old(self) -> Ids:
        return np.random.default_rng([self.seed, 0]).permutation(self.old_rows)

    @cached_property
    def new(self) -> Ids:
        shared = round(self.overlap * self.new_rows)
        order = np.random.default_rng([self.seed, 1]).permutation(self.new_rows)
        return order + (self.old_rows - shared)

    @cached_property
    def remapping(self) -> Ids:
        """For each new token its old row, or -1."""
        row_of = np.empty(self.old_rows, np.int64)
        row_of[self.old] = np.arange(self.old_rows)
        rows = np.full(self.new_rows, MISSING)
        known = self.new < self.old_rows
        rows[known] = row_of[self.new[known]]
        return rows

    def write(self, folder: Path) -> None:
        """Writes both vocabularies, one token a line."""
        for path, ids in ((old_vocab(folder), self.old), (new_vocab(folder), self.new)):
            with path.open("wb") as file:
                for start in range(0, len(ids), _BLOCK):
                    file.write(_lines(ids[start : start + _BLOCK], self.seed))


def old_vocab(folder: Path) -> Path:
    return folder / "old_vocab.txt"


def new_vocab(folder: Path) -> Path:
    return folder / "new_vocab.txt"


def digest(array: npt.NDArray[np.generic]) -> str:
    """SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def _lines(ids: Ids, seed: int) -> bytes:
    """Tokens and newlines; a token depends on its id and the seed alone."""
    letters = _letters(ids.astype(np.uint64), seed)
    lengths = _SHORTEST + letters[:, -1].astype(np.int64) % (_LONGEST - _SHORTEST + 1)
    letters[np.arange(len(ids)), lengths] = ord("\n")
    return letters[np.arange(letters.shape[1]) <= lengths[:, None]].tobytes()


def _letters(ids: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint8]:
    """A matrix of letters, one row an id: a unique beginning and then a filling."""
    mask = np.uint64((1 << 4 * _NIBBLES) - 1)
    mixed = ids * np.uint64(_SPREAD) & mask
    shifts = np.arange(_NIBBLES, dtype=np.uint64) * np.uint64(4)
    unique = (mixed[:, None] >> shifts) & np.uint64(15)
    size = _LONGEST + 1 - _NIBBLES
    filling = np.random.default_rng(seed).integers(len(_LETTERS), size=(4096, size))
    return _LETTERS[np.hstack([unique.astype(np.int64), filling[ids % np.uint64(4096)]])]
