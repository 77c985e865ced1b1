"""The remapping of each VocabInfo, and the vocabularies behind it, read once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace

from torch_warmstart.model import Variable
from torch_warmstart.planning.rows.initialising import Initialising
from torch_warmstart.planning.rows.old_vocabularies import OldVocabularies
from torch_warmstart.settings import AnyVocabInfo, ClipOrPad, VocabInfo, takes_new_rows
from torch_warmstart.vocabularies import (
    Remapping,
    Vocabularies,
    read_vocabularies,
    remapping_between,
    remapping_by_position,
)

# The keys that a variable is made of; and of a slot, those of its parameter.
Taken = tuple[tuple[str, ...], tuple[str, ...]]


class Remappings:
    """The remapping of each VocabInfo; variables with the same vocabularies share one.

    Each vocabulary is read once. Beyond its remapping it is held only if new rows are made of what
    it says (`infos`).
    """

    def __init__(self, old: OldVocabularies, infos: Iterable[AnyVocabInfo | None]) -> None:
        self.old = old
        self._known: dict[Hashable, Remapping] = {}
        self._held: dict[Hashable, Vocabularies] = {}
        self._alive: list[VocabInfo] = []  # so that no other has the same identity
        self._to_hold = {
            _vocabularies_of(info)
            for info in infos
            if isinstance(info, VocabInfo) and takes_new_rows(info.backup_initializer)
        }
        self.initialising = Initialising(old.storage)

    def of(
        self,
        info: AnyVocabInfo,
        variable: Variable,
        axis: int,
        old_size: int,
        taken: Taken = ((), ()),
    ) -> Remapping:
        """What an info means for an axis of a variable.

        `taken` are the keys that the variable is made of, and those of a slot's parameter.

        Raises VocabularyError: a vocabulary is missing, empty, or has an entry twice.
        """
        size, device = variable.shape[axis], variable.device
        if isinstance(info, ClipOrPad):
            return remapping_by_position(size, old_size, device)
        full = self._full(info, taken)
        known = _vocabularies_of(full), device
        if known not in self._known:
            vocabularies = self._read(info, full).to(device)
            self._known[known] = remapping_between(full, vocabularies)
            self._alive.append(full)
        return self._known[known].padded_to(size)

    def vocabularies(self, info: AnyVocabInfo, taken: Taken = ((), ())) -> Vocabularies | None:
        """What the rows of a variable stand for, on the CPU; None where they go by position."""
        return self._read(info, self._full(info, taken)) if isinstance(info, VocabInfo) else None

    def _full(self, info: VocabInfo, taken: Taken) -> VocabInfo:
        return replace(info, old_vocab=self.old.of(info, *taken))

    def _read(self, info: VocabInfo, full: VocabInfo) -> Vocabularies:
        """Both vocabularies of `info`, which `full` has in full."""
        key = _vocabularies_of(full)
        if key in self._held:
            return self._held[key]
        found = read_vocabularies(full, self.old.storage)
        if _vocabularies_of(info) in self._to_hold:
            self._held[key] = found
        return found


def _vocabularies_of(info: VocabInfo) -> Hashable:
    """Equal for infos that say the same of which row is which."""
    sources = (info.new_vocab, info.old_vocab)
    return (
        *(source if isinstance(source, str) else id(source) for source in sources),
        *(info.new_vocab_size, info.old_vocab_size),
        *(info.num_oov_buckets, info.old_num_oov_buckets),
        *(info.forms_of("new"), info.forms_of("old")),
    )
