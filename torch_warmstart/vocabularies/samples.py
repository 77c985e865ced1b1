"""A tensor known again by a few of its rows, so that what was said of it is not taken for another.

A checkpoint that is written anew under its old name has other values, and perhaps other entries in
its rows. A megabyte tells, or one row that is longer; of a remote one, whose rows are a request
each, both ends do.
"""

from __future__ import annotations

import hashlib

import torch

from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.storage import is_remote
from torch_warmstart.values import frozen

_MOST_BYTES = 1 << 20
_MOST_OF_A_ROW = 32 << 20
_MOST_ROWS = 4096
_AT_ENDS = 8  # rows


@frozen
class Sample:
    """What tells a tensor: its shape, and digests of rows at its ends and all over it."""

    shape: tuple[int, ...]
    ends: str
    spread: str


def sample_of(checkpoint: Checkpoint, key: str) -> Sample:
    """Reads a few rows of a tensor."""
    spec = checkpoint.spec(key)
    ends, spread = (_digest(checkpoint, spec, _rows(spec, most)) for most in _MOST)
    return Sample(tuple(spec.shape), ends, spread)


def is_of(sample: Sample, checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor is the one that a sample is of, as far as it tells.

    Of a remote one only the ends are read, which are two requests.
    """
    spec = checkpoint.spec(key)
    if tuple(spec.shape) != sample.shape:
        return False
    only_ends = is_remote(checkpoint.url)
    rows = _rows(spec, _MOST[0] if only_ends else _MOST[1])
    told = sample.ends if only_ends else sample.spread
    return _digest(checkpoint, spec, rows) == told


_MOST = (2 * _AT_ENDS, _MOST_ROWS)


def _rows(spec: TensorSpec, most: int) -> torch.Tensor:
    """Which rows tell, of so many at most; none where a row is long, or is none of numbers."""
    count = spec.shape[0] if spec.shape else 0
    each = spec.nbytes // max(1, count)
    if spec.dtype is None or spec.unreadable or not 0 < each <= _MOST_OF_A_ROW:
        return torch.zeros(0, dtype=torch.int64)
    most = max(1, min(most, _MOST_BYTES // each))
    if count <= most:
        return torch.arange(count)
    if most <= 2 * _AT_ENDS:
        half = most // 2
        return torch.cat([torch.arange(most - half), torch.arange(count - half, count)])
    return torch.arange(most) * (count - 1) // (most - 1)


def _digest(checkpoint: Checkpoint, spec: TensorSpec, rows: torch.Tensor) -> str:
    digest = hashlib.blake2b(str(spec.dtype).encode(), digest_size=16)
    if len(rows):
        found = checkpoint.view_tensor(spec.key, rows).contiguous()
        digest.update(found.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
