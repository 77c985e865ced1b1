"""Entries that were only kept free: their rows have never been trained."""

from __future__ import annotations

import re

import torch

from torch_warmstart.entries import Vocabulary

_BEGIN = b"[<mM"  # what such an entry begins with, so that no other is looked at
_RESERVED = re.compile(
    rb"\[unused_?\d+\]|<unused_?\d+>|<\|?(?:reserved|placeholder|dummy)[_ a-z]*\d+\|?>"
    rb"|madeupword\d+",
    re.IGNORECASE,
)


def reserved_rows(vocabulary: Vocabulary | None, size: int) -> torch.Tensor:
    """Which rows' entries are called as those kept free: `[unused7]`, `<|reserved_12|>`."""
    reserved = torch.zeros(size, dtype=torch.bool)
    if vocabulary is None or not vocabulary.listed.is_text:
        return reserved
    listed = vocabulary.listed
    starts, lengths = listed.places(slice(None))
    first = listed.text[starts.clamp(max=len(listed.text) - 1)]
    likely = torch.stack([first == byte for byte in _BEGIN]).any(0) & (lengths > 0)
    at = likely.nonzero().flatten()
    values = listed.take(at).values(slice(None))
    found = [_RESERVED.fullmatch(value) is not None for value in values if isinstance(value, bytes)]
    reserved[vocabulary.entry_rows[at]] = torch.tensor(found, dtype=torch.bool)
    return reserved
