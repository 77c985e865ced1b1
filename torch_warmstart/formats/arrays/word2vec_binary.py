"""word2vec's binary embedding tables: `count dimension`, then each token and its vector.

A row is its token, a space, the vector as little-endian float32, and in files of some writers a
newline. Rows have different lengths, so opening a file finds where each begins. As with text, the
tensor is `vectors` and its rows are those of `checkpoint.vocabulary`.
"""

from __future__ import annotations

import numpy as np
import torch

from torch_warmstart.errors import CorruptCheckpointError, plural
from torch_warmstart.formats.arrays.text_vectors import HEADER, VectorTable
from torch_warmstart.formats.base import TensorSpec
from torch_warmstart.formats.place import Place
from torch_warmstart.storage import ByteSource

_MAX_HEADER = 64  # bytes
_MAX_TOKEN = 10_000  # bytes; the original program's limit is 2,000
_SHORTEST_TOKEN = 1  # byte, and the space
_FLOAT = 4  # bytes


def sniff(place: Place) -> str | None:
    """Whether a file begins with sizes, and what follows them is binary and long enough."""
    head = place.head(_MAX_HEADER)
    line, newline, _ = head.partition(b"\n")
    match = HEADER.fullmatch(line)
    if not newline or not match or not int(match[2]):
        return "no count and dimension in its first line"
    shortest = int(match[1]) * (_SHORTEST_TOKEN + 1 + _FLOAT * int(match[2]))
    if place.source.size < len(line) + 1 + shortest:
        return "too short for the sizes in its first line"
    sample = place.head(len(line) + 1 + 2 * (_MAX_TOKEN + _FLOAT * int(match[2])))
    vector = sample[len(line) + 1 :].partition(b" ")[2][: _FLOAT * int(match[2])]
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
        self.url, self._source = url, source
        line = source.read(0, min(_MAX_HEADER, source.size)).tobytes().partition(b"\n")[0]
        match = HEADER.fullmatch(line)
        if match is None:
            raise CorruptCheckpointError(f"{url} does not begin with a count and a dimension.")
        self._shape = (int(match[1]), int(match[2]))
        self._raw = source.read(0, source.size)
        self._tokens, self._offsets = self._find_rows(len(line) + 1)

    def _find_rows(self, at: int) -> tuple[list[bytes], torch.Tensor]:
        data, (count, dimension) = self._raw, self._shape
        if count * (_SHORTEST_TOKEN + 1 + _FLOAT * dimension) > len(data):
            raise CorruptCheckpointError(f"{self.url} is too short for {plural(count, 'vector')}.")
        tokens, offsets = [], np.empty(count, dtype=np.int64)
        for row in range(count):
            token, space, _ = data[at : at + _MAX_TOKEN].tobytes().partition(b" ")
            end = at + len(token) + 1 + _FLOAT * dimension
            if not space or end > len(data):
                raise CorruptCheckpointError(f"{self.url}: row {row:,} is cut off or damaged.")
            tokens.append(token.removeprefix(b"\n"))
            offsets[row] = at + len(token) + 1
            at = end
        return tokens, torch.from_numpy(offsets)

    @property
    def vocabulary(self) -> list[bytes]:
        return self._tokens

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        offsets = self._offsets if rows is None else self._offsets[rows]
        out = np.empty((len(offsets), _FLOAT * spec.shape[1]), dtype=np.uint8)
        for row, offset in enumerate(offsets.tolist()):
            out[row] = self._raw[offset : offset + out.shape[1]]
        return torch.from_numpy(out.view("<f4").astype(np.float32, copy=False))

    def _close(self) -> None:
        self._source.close()
