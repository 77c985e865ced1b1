"""The remapping of each VocabInfo, and the vocabularies behind it, read once."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from torch_warmstart.computing import without_old_row
from torch_warmstart.entries import PADDING, Vocabulary, is_special
from torch_warmstart.errors import VocabularyError
from torch_warmstart.model import Variable, padding_row
from torch_warmstart.model.sharding import has_other_ranks
from torch_warmstart.planning.rows.old_vocabularies import OldVocabularies
from torch_warmstart.settings import (
    AnyVocabInfo,
    ClipOrPad,
    SegmentInfo,
    VocabInfo,
    takes_new_rows,
)
from torch_warmstart.vocabularies import (
    Remapping,
    Vocabularies,
    count_rows,
    read_vocabularies,
    remapping_between,
    remapping_by_position,
)

# Rows more than a variable has: before its remapping is made, for which memory would be asked.
_FAR_TOO_MANY = 1 << 24
# The keys that a variable is made of; and of a slot, those of its parameter.
Taken = tuple[tuple[str, ...], tuple[str, ...]]

if TYPE_CHECKING:
    from torch_warmstart.planning.rows.initialising import Initialising


def padding_rows_of(variable: Variable) -> set[int]:
    """Which of a parameter's rows are for no input, as its modules say (`padding_idx`)."""
    if variable.slot is not None:
        return set()
    found = {padding_row(owner.module) for owner in variable.owners if owner.leaf == "weight"}
    return {row for row in found if row is not None}


def new_padding_rows(variable: Variable, remapping: Remapping, axis: int) -> tuple[int, ...]:
    """Which of a parameter's new rows are for no input."""
    if axis:
        return ()
    rows = sorted(row for row in padding_rows_of(variable) if row < len(remapping.rows))
    return tuple(row for row in rows if int(remapping.rows[row]) < 0)


class Remappings:
    """The remapping of each VocabInfo; variables with the same vocabularies share one.

    Each vocabulary is read once. Beyond its remapping it is held only if new rows are made of what
    it says (`infos`).
    """

    def __init__(
        self,
        old: OldVocabularies,
        infos: Iterable[AnyVocabInfo | None],
        variables: Iterable[Variable] = (),
    ) -> None:
        self.old = old
        self._padding = sorted({row for variable in variables for row in padding_rows_of(variable)})
        self._known: dict[Hashable, Remapping] = {}
        self._held: dict[Hashable, Vocabularies] = {}
        self._alive: list[VocabInfo] = []  # so that no other has the same identity
        self._to_hold = {
            _vocabularies_of(info)
            for info in infos
            if isinstance(info, VocabInfo) and takes_new_rows(info.backup_initializer)
        }

    @functools.cached_property
    def initialising(self) -> Initialising:
        """Who makes new rows."""
        from torch_warmstart.planning.rows.initialising import Initialising

        return Initialising(self.old.storage)

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
        if isinstance(info, SegmentInfo):
            from torch_warmstart.vocabularies import remapping_of_segments

            segments = {name: self._segment(info, name, variable) for name in info.new_segments}
            return remapping_of_segments(info, segments, old_size, device)
        full = self._full(info, axis, taken)
        return self._between(info, full, variable).padded_to(size)

    def _between(self, info: VocabInfo, full: VocabInfo, variable: Variable) -> Remapping:
        """The remapping of `info`, of which `full` has both vocabularies."""
        device = variable.device
        known = _vocabularies_of(full), device
        if known not in self._known:
            vocabularies = self._read(info, full)
            buckets = f" with num_oov_buckets={info.num_oov_buckets:,}"
            what = vocabularies.new.origin + (buckets if info.num_oov_buckets else "")
            _check_not_far(len(vocabularies.new), what, variable)
            remapping = remapping_between(full, vocabularies.to(device))
            taken = _taken_from_padding(self._padding, remapping, vocabularies.new)
            remapping = replace(remapping, taken_from_padding=taken)
            if has_other_ranks():
                rows = without_old_row(remapping.rows).cpu()
                remapping = replace(remapping, new_entries=vocabularies.new.fingerprint_at(rows))
            self._known[known] = remapping
            self._alive.append(full)
        return self._known[known]

    def _segment(self, info: SegmentInfo, name: str, variable: Variable) -> int | Remapping:
        """How many columns a feature has, or which old one each is."""
        inner = info.new_segments[name]
        if isinstance(inner, VocabInfo) and name in info.old_segments:
            full = replace(inner, old_vocab=self.old.of(inner))
            return self._between(inner, full, variable)
        count = count_rows(inner, self.old.storage) if isinstance(inner, VocabInfo) else inner
        _check_not_far(count, f"the feature {name!r}", variable)
        return count

    def vocabularies(
        self, info: AnyVocabInfo, axis: int, taken: Taken = ((), ())
    ) -> Vocabularies | None:
        """What the rows of a variable stand for, on the CPU; None where they go by position."""
        if not isinstance(info, VocabInfo):
            return None
        return self._read(info, self._full(info, axis, taken))

    def _full(self, info: VocabInfo, axis: int, taken: Taken) -> VocabInfo:
        """With its old vocabulary. The ids that a table keeps are those of its rows, axis 0."""
        old = self.old.of(info, *taken, has_ids=axis == 0)
        return info if old is info.old_vocab else replace(info, old_vocab=old)

    def _read(self, info: VocabInfo, full: VocabInfo) -> Vocabularies:
        """Both vocabularies of `info`, which `full` has in full."""
        key = _vocabularies_of(full)
        if key in self._held:
            return self._held[key]
        found = read_vocabularies(full, self.old.storage)
        if _vocabularies_of(info) in self._to_hold:
            self._held[key] = found
        return found


def _taken_from_padding(
    padding: Iterable[int], remapping: Remapping, new: Vocabulary
) -> Mapping[int, str]:
    """New entries in rows that modules never train, unless they are what stands for no input."""
    taken = {}
    for row in padding:
        if row < len(remapping.rows) and int(remapping.rows[row]) < 0:
            number = int(new.numbers_at(torch.tensor([row])))
            purposes = (name for name, rows in new.special.items() if row in rows)
            is_said = any(name != PADDING for name in purposes)
            if number >= 0 and not is_said and not _may_be_no_input(new.listed.entry(number)):
                taken[row] = new.show(number)
    return taken


def _may_be_no_input(entry: bytes | int) -> bool:
    """Whether it may be called so: "<pad>", "PADDING", "", 0."""
    if isinstance(entry, int):
        return entry in (0, -1)
    return not entry or is_special(entry) or b"pad" in entry.lower()


def _check_not_far(count: int, what: str, variable: Variable) -> None:
    """Raises VocabularyError for rows of which no variable has as many."""
    if count - max(variable.shape, default=0) > _FAR_TOO_MANY:
        raise VocabularyError(
            f"{what} has {count:,} rows, far more than there are in {list(variable.shape)}."
        )


def _vocabularies_of(info: VocabInfo) -> Hashable:
    """Equal for infos that say the same of which row is which."""
    sources = (info.new_vocab, info.old_vocab)
    return (
        *(source if isinstance(source, str) else id(source) for source in sources),
        *(info.new_vocab_size, info.old_vocab_size),
        *(info.num_oov_buckets, info.old_num_oov_buckets),
        *(info.forms_of("new"), info.forms_of("old")),
    )
