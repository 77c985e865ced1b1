"""Entries from values of Python's, and a vocabulary of entries with a row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from torch_warmstart.entries.entries import ENTRY, Entries
from torch_warmstart.entries.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_ROWS = 1 << 48  # no table has so many


def text_entries(
    data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], origin: str, unit: str = ENTRY
) -> Entries:
    """Entries that lie one behind the other in a buffer."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=bounds[1:])
    held = torch.from_numpy(data if len(data) else np.zeros(1, dtype=np.uint8))
    return Entries(origin, unit, held, torch.from_numpy(bounds))


def entries_of_bytes(entries: Sequence[bytes], origin: str, unit: str = ENTRY) -> Entries:
    """Entries that are bytes of Python's."""
    data = np.frombuffer(bytearray(b"".join(entries)), dtype=np.uint8)
    return text_entries(data, np.fromiter(map(len, entries), np.int64, len(entries)), origin, unit)


def placed(entries: Entries, rows: torch.Tensor) -> Vocabulary | None:
    """Entries with a row each, int64 in any order; None if two have one, or one is no row."""
    order = torch.argsort(rows)
    rows = rows[order]
    if not len(rows) or int(rows[0]) < 0 or int(rows[-1]) >= MOST_ROWS:
        return None
    if bool((rows.diff() == 0).any()):
        return None
    last = int(rows[-1])
    is_whole = last == len(rows) - 1
    return Vocabulary(entries.take(order), last + 1, at=None if is_whole else rows)
