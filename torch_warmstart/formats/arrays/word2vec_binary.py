"""word2vec's binary embedding tables: `count dimension`, then each token and its vector.

A row is its token, a space, the vector as little-endian float32, and in files of some writers a
newline. Rows have different lengths, so opening a file finds where each begins (word2vec_rows.py).
As with text, the tensor is `vectors` and its rows are those of `checkpoint.vocabulary`.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from torch_warmstart.errors import CorruptCheckpointError, plural
from torch_warmstart.formats.arrays.text_vectors import HEADER, VectorTable
from torch_warmstart.formats.arrays.word2vec_rows import FLOAT, MAX_TOKEN, bytes_at, find_vectors
from torch_warmstart.formats.base import TensorSpec
from torch_warmstart.formats.place import Place
from torch_warmstart.storage import ByteSource

_MAX_HEADER = 64  # bytes
_SHORTEST_TOKEN = 1  # byte, and the space


def sniff(place: Place) -> str | None:
    """Whether a file begins with sizes, and what follows them is binary and long enough."""
    head = place.head(_MAX_HEADER)
    line, newline, _ = head.partition(b"\n")
    match = HEADER.fullmatch(line)
    if not newline or not match or not int(match[2]):
        return "no count and dimension in its first line"
    shortest = int(match[1]) * (_SHORTEST_TOKEN + 1 + FLOAT * int(match[2]))
    if place.source.size < len(line) + 1 + shortest:
        return "too short for the sizes in its first line"
    sample = place.head(len(line) + 1 + 2 * (MAX_TOKEN + FLOAT * int(match[2])))
    vector = sample[len(line) + 1 :].partition(b" ")[2][: FLOAT * int(match[2])]
    text = vector.translate(None, b"0123456789+-.eE \r\n")
    return "its vectors are text" if not text else None


def open_place(place: Place) -> Word2vecBinary:
    """Opens a file."""
    return Word2vecBinary(place.url, place.source)


class Word2vecBinary(VectorTable):
    """A binary table."""

    format = "word2vec binary file"

    def __init__(self, url: str, source: ByteSource) -> None:
        """Finds the rows; raises CorruptCheckpointError."""
        self.url: str = url
        self._source = source
        line = source.read(0, min(_MAX_HEADER, source.size)).tobytes().partition(b"\n")[0]
        match = HEADER.fullmatch(line)
        if match is None or not int(match[2]):
            raise CorruptCheckpointError(f"{url} does not begin with a count and a dimension.")
        self._shape = count, dimension = int(match[1]), int(match[2])
        if count * (_SHORTEST_TOKEN + 1 + FLOAT * dimension) > source.size:
            raise CorruptCheckpointError(f"{url} is too short for {plural(count, 'vector')}.")
        self._raw, self._first = source.read(0, source.size), len(line) + 1
        try:
            self._offsets = find_vectors(self._raw, self._first, count, dimension)
        except ValueError as error:
            raise CorruptCheckpointError(f"{url}: {error}.") from error

    @functools.cached_property
    def vocabulary(self) -> list[bytes]:
        spaces = self._offsets - 1
        starts = np.append(self._first, self._offsets + FLOAT * self._shape[1])
        return [
            self._raw[start:space].tobytes().removeprefix(b"\n")
            for start, space in zip(starts.tolist(), spaces.tolist(), strict=False)
        ]

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        offsets = self._offsets if rows is None else self._offsets[rows.numpy()]
        vectors = bytes_at(self._raw, offsets, FLOAT * spec.shape[1]).view("<f4")
        return torch.from_numpy(vectors.astype(np.float32, copy=False))

    def _close(self) -> None:
        self._source.close()
