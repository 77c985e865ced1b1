"""What the classes of a head are called, when its rows become others."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from torch_warmstart.planning.live.tables import TableChange
from torch_warmstart.settings import VocabInfo
from torch_warmstart.vocabularies import read_vocabulary


def called_anew(change: TableChange, names: Mapping[int, str]) -> dict[int, str]:
    """Names of classes: those that stay keep theirs, a new one has its entry.

    One that is another's already gets its number behind it, so that no two classes have one name.
    """
    rows = change.remapping.rows.tolist()
    entries: Sequence[Any] = ()
    if isinstance(change.info, VocabInfo):
        entries = read_vocabulary(change.info.new_vocab).entries
    called = {row: names[old] for row, old in enumerate(rows) if old >= 0}
    taken = {*called.values()}
    for row in range(len(rows)):
        if row not in called:
            called[row] = _free(_new_name(row, entries), row, taken)
            taken.add(called[row])
    return dict(sorted(called.items()))


def _new_name(row: int, entries: Sequence[Any]) -> str:
    entry = entries[row] if row < len(entries) else None
    text = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry
    return f"LABEL_{row}" if text is None else str(text)


def _free(name: str, row: int, taken: Container[str]) -> str:
    while name in taken:
        name = f"{name}_{row}"
    return name
