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
from torch_warmstart.formats import Checkpoint
from torch_warmstart.model import Variable
from torch_warmstart.names.source import Source, differ, fitting, whole


def narrowed(
    sources: Sequence[Source], variable: Variable, checkpoint: Checkpoint
) -> Sequence[Source]:
    """Of what answers to a variable, what is whole and fits; of equal copies one."""
    if differ(sources):
        sources = whole(sources)
    sources = fitting(sources, variable) or sources
    return _one_of_copies(sources, checkpoint) if differ(sources) else sources


def _one_of_copies(sources: Sequence[Source], checkpoint: Checkpoint) -> list[Source]:
    """The first alone, if what the others would make of the variable is the same in each byte."""
    first, *others = sources
    made = _made_of(first, checkpoint)
    for source in others:
        other = None if made is None else _made_of(source, checkpoint)
        is_alike = source.is_inferred == first.is_inferred and _are_the_same(made, other)
        if not is_alike:
            return list(sources)
    return [replace(first, copies=tuple(spec for source in others for spec in source.specs))]


def _made_of(source: Source, checkpoint: Checkpoint) -> torch.Tensor | None:
    """What a source makes of its tensor, in the layout of torch; None if that is not to be told."""
    if len(source.specs) != 1 or source.specs[0].dtype is None or source.shape is None:
        return None
    spec, form = source.specs[0], source.form
    if form.refusal is not None or spec.unreadable or checkpoint.pieces(spec.key) is not None:
        return None  # what has no values, or has them on several ranks
    try:
        return form.layout.to_torch(checkpoint.view_tensor(spec.key))[form.part]
    except UnsupportedError:  # torch.distributed.checkpoint.load reads them only later
        return None


def _are_the_same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return False
    kinds = [(tensor.shape, tensor.dtype, tensor.device) for tensor in (one, other)]
    return kinds[0] == kinds[1] and torch.equal(*map(as_bytes, (one, other)))
