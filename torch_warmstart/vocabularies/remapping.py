"""From two vocabularies to a remapping: for each new row its old row, -1 if there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torch_warmstart.display import progress_bar
from torch_warmstart.entries import Vocabulary, positions
from torch_warmstart.errors import SettingsError, VocabularyError, plural
from torch_warmstart.settings import ALL_ENTRIES, VocabInfo, VocabSource
from torch_warmstart.storage import LOCAL, Storage
from torch_warmstart.vocabularies.join import MISSING, Joined, join, work_of
from torch_warmstart.vocabularies.loading import (
    check_lines,
    check_no_blanks,
    read_vocabulary,
    used_entries,
)
from torch_warmstart.vocabularies.readings import other_reading

_LITTLE = 0.1  # of the new entries


@dataclass(frozen=True, slots=True, eq=False)
class Remapping:
    """What a `VocabInfo` means for the rows of a variable.

    `rows` has one old row, or -1, for each new row, OOV rows included: int64 on the device of the
    variable. The counts add up to its length.
    """

    rows: torch.Tensor
    num_present: int  # new entries that the old vocabulary has
    num_new: int  # new entries that it does not have
    num_oov: int  # OOV rows of the new variable
    num_oov_copied: int  # those of them that take an old OOV row
    num_old: int  # old entries in use
    old_rows: int  # rows the old tensor must at least have
    # Where hardly an entry is found: what would match if they were read otherwise; "": nothing.
    other_reading: str = ""

    @property
    def num_dropped(self) -> int:
        """Old entries that the new vocabulary does not have."""
        return self.num_old - self.num_present

    @property
    def num_without_old_row(self) -> int:
        return self.num_new + self.num_oov - self.num_oov_copied

    @property
    def finds_little(self) -> bool:
        """Whether under a tenth of the new entries are in the old vocabulary."""
        return self.num_present < _LITTLE * (self.num_present + self.num_new)


def generate_vocab_remapping(
    new_vocab: VocabSource,
    old_vocab: VocabSource,
    *,
    new_vocab_offset: int = 0,
    num_new_vocab: int = ALL_ENTRIES,
    old_vocab_size: int = ALL_ENTRIES,
    device: torch.device | str = "cpu",
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[torch.Tensor, int]:
    """For each new entry its index in the old vocabulary: TensorFlow's GenerateVocabRemapping.

    Args:
        new_vocab: Path or URL of a file with one entry a line, or a sequence of str, bytes or int.
        old_vocab: The same, for the old vocabulary.
        new_vocab_offset: The first new entry to look up.
        num_new_vocab: How many to look up; -1 for all from the offset on.
        old_vocab_size: How many old entries count, from the first; -1 for all.
        device: Where to compute, and where the result is.
        storage_options: Passed to fsspec, for vocabularies that are URLs.

    Returns:
        An int64 tensor of `num_new_vocab` with -1 for entries the old vocabulary does not have, and
        how many it has.

    Raises:
        VocabularyError: a vocabulary is missing, empty or too short, has a blank entry, or the old
            one has an entry twice.
        SettingsError: an offset or a size is negative.

    Example:
        >>> generate_vocab_remapping(["c", "x", "a"], ["a", "b", "c"])
        (tensor([ 2, -1,  0]), 2)
    """
    if new_vocab_offset < 0 or num_new_vocab < ALL_ENTRIES or old_vocab_size < ALL_ENTRIES:
        raise SettingsError(
            "new_vocab_offset is at least 0, the two sizes at least 0 (or -1: all)."
        )
    storage = Storage(storage_options or {})
    new = read_vocabulary(new_vocab, device, storage)
    check_no_blanks(new)
    old = used_entries(
        read_vocabulary(old_vocab, device, storage), old_vocab_size, "old_vocab_size"
    )
    stop = len(new) if num_new_vocab == ALL_ENTRIES else new_vocab_offset + num_new_vocab
    if not new_vocab_offset <= stop <= len(new):
        raise VocabularyError(
            f"Entries {new_vocab_offset:,} to {stop:,} are asked for, but {new.origin} has "
            f"{len(new):,}."
        )
    joined = _join(new.slice(new_vocab_offset, stop), old)
    return joined.rows, joined.num_present


def plan_remapping(
    info: VocabInfo,
    device: torch.device,
    storage: Storage = LOCAL,
    *,
    progress: bool | None = None,
) -> Remapping:
    """The remapping that a VocabInfo describes, checked as far as the vocabularies go.

    `progress` shows a bar; None shows one for long work on a terminal.

    Raises VocabularyError: as generate_vocab_remapping; if a new entry that the old vocabulary has
    is there twice, because two rows would then claim one old row; and if no entry is found, but
    would be if they were read otherwise.
    """
    whole = read_vocabulary(info.new_vocab, device, storage)
    check_lines(whole)
    check_no_blanks(whole)
    new = used_entries(whole, info.new_vocab_size, "new_vocab_size")
    before = read_vocabulary(info.old_vocab, device, storage)
    check_lines(before)
    old = used_entries(before, info.old_vocab_size, "old_vocab_size")
    num_old = len(old)
    joined = _join(new, old, progress)
    rows, num_present = joined.rows, joined.num_present
    if joined.may_share:
        _check_no_shared_rows(new, rows, num_old)
    little = num_present < _LITTLE * len(new)
    otherwise = other_reading(new, old, rows) if little else ""
    if otherwise and not num_present:
        raise VocabularyError(
            f"None of the {plural(len(new), 'entry')} of {new.origin} is in {old.origin}. "
            f"{otherwise} Write both alike, or pass their entries as sequences."
        )
    copied = info.old_num_oov_buckets
    highest = int(rows.max()) + 1 if num_present else 0
    return Remapping(
        rows=_with_oov(rows, num_old, info.num_oov_buckets, copied),
        num_present=num_present,
        num_new=len(new) - num_present,
        num_oov=info.num_oov_buckets,
        num_oov_copied=copied,
        num_old=num_old,
        old_rows=num_old + copied if copied else highest,
        other_reading=otherwise,
    )


def remapping_by_position(new_size: int, old_size: int, device: torch.device) -> Remapping:
    """The first rows to the first rows, as far as both reach."""
    shared = min(new_size, old_size)
    rows = torch.full((new_size,), MISSING, dtype=torch.int64, device=device)
    rows[:shared] = torch.arange(shared, device=device)
    return Remapping(
        rows=rows,
        num_present=shared,
        num_new=new_size - shared,
        num_oov=0,
        num_oov_copied=0,
        num_old=old_size,
        old_rows=shared,
    )


def _join(new: Vocabulary, old: Vocabulary, progress: bool | None = None) -> Joined:
    if new.is_text != old.is_text:
        text, ids = (new, old) if new.is_text else (old, new)
        raise VocabularyError(
            f"{text.origin} holds text and {ids.origin} integers; give both as the same kind."
        )
    with progress_bar(work_of(new, old), show=progress) as advance:
        joined = join(new, old, advance)
    if joined.repeat is not None:
        first, second = joined.repeat
        raise VocabularyError(
            f"{old.origin} has an entry twice, so its old row is ambiguous: {old.show(first)} and "
            f"{old.show(second)}."
        )
    return joined


def _with_oov(rows: torch.Tensor, num_old: int, num_oov: int, copied: int) -> torch.Tensor:
    """The rows and behind them the OOV buckets', of which the first take the old ones."""
    if not num_oov:
        return rows
    oov = torch.full((num_oov,), MISSING, dtype=torch.int64, device=rows.device)
    oov[:copied] = torch.arange(num_old, num_old + copied, device=rows.device)
    return torch.cat([rows, oov])


def _check_no_shared_rows(new: Vocabulary, rows: torch.Tensor, num_old: int) -> None:
    claims = torch.bincount(rows[rows >= 0], minlength=num_old)
    shared = positions(claims > 1)
    if not len(shared):
        return
    places = positions(rows == shared[0])
    raise VocabularyError(
        f"{new.origin} has an entry twice: {new.show(int(places[0]))} and "
        f"{new.show(int(places[1]))}. Two rows of the new variable would claim the same old row."
    )
