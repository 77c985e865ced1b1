"""What the classes of a head are called, when its rows become others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch_warmstart.planning.live.tables import TableChange
from torch_warmstart.settings import VocabInfo
from torch_warmstart.vocabularies import read_vocabulary


def called_anew(change: TableChange, names: Mapping[int, str]) -> dict[int, str]:
    """Names of classes: those that stay keep theirs, a new one has its entry."""
    rows = change.remapping.rows.tolist()
    entries: Sequence[Any] = ()
    if isinstance(change.info, VocabInfo):
        entries = read_vocabulary(change.info.new_vocab).entries
    called = {}
    for row, old in enumerate(rows):
        entry = entries[row] if row < len(entries) else None
        text = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry
        new = f"LABEL_{row}" if text is None else str(text)
        called[row] = names[old] if old >= 0 else new
    return called
