"""Tied weights that a checkpoint keeps once for each of their names, instead of once.

Where tensors are copied one by one (`half()`, a way from a GPU, torch.distributed.checkpoint), a
tied weight becomes as many tensors as it has names. Names and shapes do not tell that their values
are the same: they are compared, only where they would be an error otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from torch_warmstart.dtypes import as_bytes
from torch_warmstart.errors import UnsupportedError
from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.names.source import Source


def one_of_copies(sources: Sequence[Source], checkpoint: Checkpoint) -> list[Source]:
    """The first alone, if what the others would make of the variable is the same in each byte."""
    first, *others = sources
    alike = [
        source
        for source in others
        if len(source.specs) == len(first.specs) == 1
        and source.form.layout is first.form.layout
        and source.form.part == first.form.part
        and source.is_inferred == first.is_inferred
        and _hold_the_same(checkpoint, first.specs[0], source.specs[0])
    ]
    if len(alike) < len(others):
        return list(sources)
    return [replace(first, copies=tuple(spec for source in alike for spec in source.specs))]


def _hold_the_same(checkpoint: Checkpoint, one: TensorSpec, other: TensorSpec) -> bool:
    specs = (one, other)
    if (one.shape, one.dtype) != (other.shape, other.dtype) or one.dtype is None:
        return False
    if any(s.unreadable or checkpoint.pieces(s.key) is not None for s in specs):
        return False  # what has no values, or has them on several ranks
    try:
        tensors = [checkpoint.view_tensor(spec.key) for spec in specs]
    except UnsupportedError:  # torch.distributed.checkpoint.load reads them only later
        return False
    if tensors[0].device != tensors[1].device:
        return False
    return torch.equal(*map(as_bytes, tensors))
