"""From two vocabularies to a remapping: for each new row its old row, -1 if there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, Literal

import torch

from torch_warmstart.computing import count_with_old_row, extremes, on_cpu
from torch_warmstart.entries import (
    MASK,
    OOV,
    PADDING,
    Entries,
    Vocabulary,
    as_tensor,
    as_vector,
    filled,
    positions,
)
from torch_warmstart.errors import SettingsError, VocabularyError, check_kind, plural
from torch_warmstart.settings import ALL_ENTRIES, OOV_BY_NUMBER, VocabInfo, VocabSource
from torch_warmstart.storage import LOCAL, Storage
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.entry_index import MISSING
from torch_warmstart.vocabularies.join import Joined, join, work_of
from torch_warmstart.vocabularies.loading import (
    header_of,
    read_items,
    read_vocabulary,
    used_rows,
)
from torch_warmstart.vocabularies.readings import differing_forms, other_encoding, other_reading
from torch_warmstart.vocabularies.refused_entries import (
    check_no_blank_lines,
    check_once,
    check_one_kind,
)

_LITTLE = 0.1  # of the new entries
_PAD_TOKEN = "pad_token"
_PADDED_TO = tuple(8 << power for power in range(7))  # multiples that tables are made higher to


@frozen(eq=False)
class Remapping:
    """What a `VocabInfo` means for the rows of a variable.

    `rows` has one old row, or -1, for each new row, special ones included: int64 on the device of
    the variable. `num_present`, `num_new`, `num_oov` and `num_vacant` add up to its length.
    """

    rows: torch.Tensor
    num_present: int  # new entries that the old vocabulary has
    num_new: int  # new entries that it does not have
    num_oov: int  # OOV rows of the new variable
    num_oov_copied: int  # those of them that take an old OOV row
    num_dropped: int  # old entries that the new vocabulary does not have
    num_old: int  # rows that the old vocabulary describes, those of OOV included
    old_rows: int  # rows the old tensor must at least have
    num_vacant: int = 0  # new rows that stand for no entry: gaps, padding, a mask
    num_vacant_copied: int = 0  # those of them that take an old row: the mask's
    mask: range = range(0)  # new rows for no input
    num_reused: int = 0  # new rows without an old one whose numbers were other entries'
    # New rows whose purpose ("pad_token") an old row had that another new row takes.
    taken_by_others: Mapping[str, int] = field(default_factory=dict)
    # New entries, as shown, in rows that a module has for no input (`padding_idx`).
    taken_from_padding: Mapping[int, str] = field(default_factory=dict)
    # Old OOV rows that both vocabularies state and that no new one takes, though nobody said so.
    num_oov_left: int = 0
    num_in_front: int = 0  # rows before the first old entry that may be such, left like them
    oov_are_last: bool = False  # the old OOV rows are those behind all others, wherever that is
    is_padded: bool = False  # whether a variable may have further rows, up to a round number
    is_old_padded: bool = False  # whether the old one may
    # Where hardly an entry is found: what would match if they were read otherwise; "": nothing.
    other_reading: str = ""
    # Where it is for tokens of two kinds and says no forms: those that it should say.
    forms_unsaid: str = ""
    other_encoding: str = ""  # where some entries would be found if a file were read in another
    header: str = ""  # that the first line of either file looks like none of its entries
    collision: str = ""  # two old entries that forms have made alike
    num_collisions: int = 0
    shared: str = ""  # two new entries that take one old row by forms
    num_sharing: int = 0
    # What the rows without an old one stand for, as a digest; "" where no other rank is there, with
    # whom to compare it.
    new_entries: str = ""
    # Of a SegmentInfo the features that have vocabularies: how many new entries each found, of how
    # many.
    segments: tuple[tuple[str, int, int], ...] = ()

    @property
    def num_without_old_row(self) -> int:
        num_copied = self.num_vacant_copied + self.num_oov_copied
        return self.num_new + self.num_vacant + self.num_oov - num_copied

    @property
    def num_entries(self) -> int:
        """New ones."""
        return self.num_present + self.num_new

    @property
    def finds_little(self) -> bool:
        """Whether under a tenth of the new entries are in the old vocabulary."""
        return _is_little(self.num_present, self.num_entries)

    def leaves_oov_unclear(self, old_size: int) -> bool:
        """Whether OOV rows that only a setting tells of are not the last of so many old rows."""
        return self.oov_are_last and self.old_rows != old_size

    def reach(self, old_size: int) -> Literal["fits", "longer", "too long"]:
        """Whether an old tensor of so many rows has all that the old vocabulary describes.

        "longer": it has not, but those that are taken. "too long": not even these.
        """
        if self.old_rows > old_size:
            return "too long"
        return "longer" if self.num_old > old_size else "fits"

    def repeated(self, times: int, old_size: int) -> Remapping:
        """The same for a tensor that has all rows several times, one block behind the other.

        Args:
            times: How many blocks there are, as many in the old tensor.
            old_size: Rows of a block of the old tensor.
        """
        blocks = [
            torch.where(self.rows < 0, self.rows, self.rows + at * old_size) for at in range(times)
        ]
        counts = (
            "num_present num_new num_oov num_oov_copied num_dropped num_old old_rows num_vacant "
            "num_vacant_copied"
        )
        more = {name: times * getattr(self, name) for name in counts.split()}
        return replace(self, rows=torch.cat(blocks), **more)

    def where(self, may: torch.Tensor) -> Remapping:
        """The same without an old row where `may`, bool of its length on any device, is False.

        The entries there are new ones, and their old rows are dropped.
        """
        rows = torch.where(may.to(self.rows.device), self.rows, MISSING)
        taken_away = int((self.rows >= 0).sum()) - int((rows >= 0).sum())
        if not taken_away:
            return self
        return replace(
            self,
            rows=rows,
            num_present=self.num_present - taken_away,
            num_new=self.num_new + taken_away,
            num_dropped=self.num_dropped + taken_away,
        )

    @property
    def takes_from_others(self) -> bool:
        """Whether by their positions some rows would be those of others."""
        by_position = torch.arange(len(self.rows), device=self.rows.device)
        has_moved = (self.rows != by_position) & (self.rows >= 0)
        return self.num_reused > 0 or bool(has_moved.any())

    def padded_to(self, size: int) -> Remapping:
        """The same for a table that is higher than its vocabulary, if that is a rounder number."""
        count = len(self.rows)
        if not self.is_padded or size <= count or not may_be_height(count, size):
            return self
        behind = self.rows.new_full((size - count,), MISSING)
        vacant = self.num_vacant + size - count
        return replace(self, rows=torch.cat([self.rows, behind]), num_vacant=vacant)


def may_be_height(rows: int, height: int) -> bool:
    """Whether tables for so many rows are made as high, where they are made higher at all."""
    return height in {-(-rows // multiple) * multiple for multiple in _PADDED_TO}


def _is_little(found: int, entries: int) -> bool:
    return found < _LITTLE * entries


@frozen(eq=False)
class Vocabularies:
    """What a `VocabInfo` stands for, read and cut to its sizes: the new and the old vocabulary."""

    new: Vocabulary  # with its OOV rows
    old: Vocabulary  # with its own
    oov_are_last: bool  # the old OOV rows are known by a setting only: those behind all others

    def to(self, device: torch.device) -> Vocabularies:
        """The same on a device."""
        return replace(self, new=self.new.to(device), old=self.old.to(device))


@on_cpu
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
    sizes = (new_vocab_offset, num_new_vocab, old_vocab_size)
    names = ("new_vocab_offset", "num_new_vocab", "old_vocab_size")
    for name, size in zip(names, sizes, strict=True):
        check_kind(f"generate_vocab_remapping: {name}", size, int, "an int")
    if new_vocab_offset < 0 or num_new_vocab < ALL_ENTRIES or old_vocab_size < ALL_ENTRIES:
        raise SettingsError(
            "new_vocab_offset is at least 0, the two sizes at least 0 (or -1: all)."
        )
    storage = Storage(storage_options)
    new = _as_tensorflow(new_vocab, device, storage)
    check_no_blank_lines(new.listed)
    old = used_rows(_as_tensorflow(old_vocab, device, storage), old_vocab_size, "old_vocab_size")
    stop = len(new) if num_new_vocab == ALL_ENTRIES else new_vocab_offset + num_new_vocab
    if not new_vocab_offset <= stop <= len(new):
        raise VocabularyError(
            f"Entries {new_vocab_offset:,} to {stop:,} are asked for, but {new.origin} has "
            f"{len(new):,}."
        )
    rows, joined = _rows_between(_part(new, new_vocab_offset, stop), old)
    return rows, joined.num_present


def _as_tensorflow(source: VocabSource, device: torch.device | str, storage: Storage) -> Vocabulary:
    """A vocabulary; of a sequence every item is an entry."""
    return read_items(source, device, storage)


def _part(vocabulary: Vocabulary, start: int, stop: int) -> Vocabulary:
    """Rows `[start, stop)`, counted from 0."""
    rows = vocabulary.entry_rows
    first, last = int((rows < start).sum()), int((rows < stop).sum())
    listed = vocabulary.listed.slice(first, last)
    at = None if vocabulary.at is None else vocabulary.at[first:last] - start
    return Vocabulary(listed, stop - start, at, max(0, vocabulary.first - start))


def rows_of(vocabulary: Vocabulary, entries: Any) -> torch.Tensor:
    """`Vocabulary.rows`."""
    with contextlib.suppress(TypeError, RuntimeError):  # what has no length is refused below
        if not len(entries):
            return torch.empty(0, dtype=torch.int64)
    asked = read_items(entries, vocabulary.listed.device)
    rows = torch.full((len(asked),), MISSING, dtype=torch.int64, device=vocabulary.listed.device)
    rows[asked.entry_rows] = find_entries(asked.listed, vocabulary)  # None stays what nobody has
    return rows


def remapping_between(
    info: VocabInfo, vocabularies: Vocabularies, *, progress: bool | None = None
) -> Remapping:
    """The remapping that a VocabInfo describes, checked as far as the vocabularies go.

    `progress` shows a bar; None shows one for long work on a terminal.

    Raises VocabularyError: as generate_vocab_remapping; if a new entry that the old vocabulary has
    is there twice, because two rows would then claim one old row; and if no entry is found, but
    would be if they were read otherwise.
    """
    if info.forms is not None:
        remapping = _by_forms(info, vocabularies)
    else:
        remapping = _by_bytes(info, vocabularies, progress)
    header = header_of(vocabularies.old.listed) or header_of(vocabularies.new.listed)
    return replace(remapping, header=header)


def _by_bytes(info: VocabInfo, vocabularies: Vocabularies, progress: bool | None) -> Remapping:
    new, old = vocabularies.new, vocabularies.old
    rows, joined = _rows_between(new, old, progress)
    if joined.may_share:
        _check_no_shared_rows(new, rows, len(old))
    found, entries = _count_found(rows, new)
    little = _is_little(found, entries)
    encoded = other_encoding(new.listed, old.listed, joined.rows)
    otherwise = (little and other_reading(new.listed, old.listed, joined.rows)) or encoded
    _check_found(found, entries, otherwise, vocabularies)
    remapping = _completed(rows, info, vocabularies)
    unsaid = "" if otherwise else differing_forms(new.listed, old.listed)
    if not little:
        return replace(remapping, other_encoding=encoded, forms_unsaid=unsaid)
    return replace(remapping, other_reading=otherwise, forms_unsaid=unsaid)


def _check_found(found: int, entries: int, otherwise: str, vocabularies: Vocabularies) -> None:
    if otherwise and not found:
        raise VocabularyError(
            f"None of the {plural(entries, 'entry')} of {vocabularies.new.origin} is in "
            f"{vocabularies.old.origin}. {otherwise} Write both alike, or pass their entries as "
            "sequences."
        )


def _count_found(rows: torch.Tensor, new: Vocabulary) -> tuple[int, int]:
    """How many entries have an old row, and how many there are.

    What the rows for no input and for what is not listed are called is none: it is the same in
    vocabularies that have nothing in common.
    """
    apart = [new.special.get(name, range(0)) for name in (OOV, MASK)]
    found = count_with_old_row(rows)
    found -= sum(count_with_old_row(rows[part.start : part.stop]) for part in apart)
    return found, len(new.listed) - sum(_listed_in(new, part) for part in apart)


def _completed(rows: torch.Tensor, info: VocabInfo, vocabularies: Vocabularies) -> Remapping:
    """With the special rows, and the account of all."""
    new, old = vocabularies.new, vocabularies.old
    taken_by_others = _take_special_rows(rows, new, old)
    _take_oov_rows(rows, new, old, info.old_num_oov_buckets)
    remapping = replace(_remapping_of(rows, new, old), taken_by_others=taken_by_others)
    if remapping.num_oov and not remapping.num_oov_copied and info.old_num_oov_buckets is None:
        left = len(old.special.get(OOV, ()))
        in_front = 0 if left or not len(old.listed) else _first_row(old)
        remapping = replace(remapping, num_oov_left=left, num_in_front=in_front)
    if not vocabularies.oov_are_last:
        return remapping
    return replace(remapping, old_rows=len(old), oov_are_last=True)


def _first_row(vocabulary: Vocabulary) -> int:
    return vocabulary.first if vocabulary.at is None else int(vocabulary.at[0])


def _by_forms(info: VocabInfo, vocabularies: Vocabularies) -> Remapping:
    """Entries are the same whose forms are; one old row may then go to several new ones."""
    from torch_warmstart.vocabularies.forms import in_forms, join_forms

    new, old = vocabularies.new, vocabularies.old
    if not new.listed.is_text or not old.listed.is_text:
        raise VocabularyError(f"forms={info.forms!r} are for text, and ids were given.")
    forms = info.forms_of("new"), info.forms_of("old")
    alike = join_forms(new.listed, old.listed, *forms)
    check_once(old.listed, alike.repeat, "old")
    check_once(new.listed, alike.new_repeat, "new")
    rows = _placed(alike.rows, new, old)
    encoded = other_encoding(new.listed, old.listed, alike.rows, tuple(map(in_forms, forms)))
    _check_found(*_count_found(rows, new), encoded, vocabularies)
    remapping = _completed(rows, info, vocabularies)
    found = remapping.rows[remapping.rows >= 0]
    shared = len(found) - len(torch.unique(found))
    return replace(
        remapping,
        num_dropped=remapping.num_dropped + shared,
        other_encoding=encoded,
        collision=alike.collision,
        num_collisions=alike.num_collisions,
        shared=alike.shared,
        num_sharing=alike.num_sharing,
    )


def read_vocabularies(info: VocabInfo, storage: Storage = LOCAL) -> Vocabularies:
    """Both vocabularies of a VocabInfo, as many rows of each as it says; raises VocabularyError."""
    new = _read_new(info, storage)
    _check_as_many_before(info.old_num_oov_buckets or 0, new)
    before = read_vocabulary(info.old_vocab, storage=storage)
    before = used_rows(before, info.old_vocab_size, "old_vocab_size")
    old = _with_buckets(before, info.old_num_oov_buckets or 0, "old_num_oov_buckets")
    return Vocabularies(new, old, oov_are_last=old is not before)


def _check_as_many_before(buckets: int, new: Vocabulary) -> None:
    now = len(new.special.get(OOV, ()))
    if buckets not in (0, now):
        raise VocabularyError(
            f"old_num_oov_buckets={buckets}, but the new variable has {plural(now, 'OOV row')}. "
            f"{OOV_BY_NUMBER}"
        )


def _read_new(info: VocabInfo, storage: Storage) -> Vocabulary:
    whole = read_vocabulary(info.new_vocab, storage=storage)
    check_no_blank_lines(whole.listed)
    new = used_rows(whole, info.new_vocab_size, "new_vocab_size")
    return _with_buckets(new, info.num_oov_buckets, "num_oov_buckets")


def count_rows(info: VocabInfo, storage: Storage = LOCAL) -> int:
    """How many rows a VocabInfo describes; its old vocabulary is not looked at."""
    return len(_read_new(info, storage))


def _with_buckets(vocabulary: Vocabulary, buckets: int, setting: str) -> Vocabulary:
    """The vocabulary with its OOV rows: its own, or as many as a setting says behind the others."""
    own = len(vocabulary.special.get(OOV, ()))
    if own and buckets not in (0, own):
        raise VocabularyError(
            f"{setting}={buckets}, but {vocabulary.origin} has {plural(own, 'OOV row')} of its "
            f"own. Leave {setting} out."
        )
    if own or not buckets:
        return vocabulary
    count = len(vocabulary)
    special = {**vocabulary.special, OOV: range(count, count + buckets)}
    return replace(vocabulary, num_rows=count + buckets, special=special)


def _rows_between(
    new: Vocabulary, old: Vocabulary, progress: bool | None = None
) -> tuple[torch.Tensor, Joined]:
    """For each new row the old row of the same entry, or -1; and what the join found."""
    joined = _join(new.listed, old.listed, progress)
    return _placed(joined.rows, new, old), joined


def _placed(rows: torch.Tensor, new: Vocabulary, old: Vocabulary) -> torch.Tensor:
    """Numbers of listed old entries for listed new ones as rows for rows."""
    found = as_vector(rows)
    if len(old.listed) and (old.at is not None or old.first):
        is_missing = found < 0
        found = found + old.first if old.at is None else as_vector(old.at)[found.clip(min=0)]
        found[is_missing] = MISSING
    if new.at is None and not new.first and len(new) == len(found):
        return as_tensor(found)
    placed = filled(len(new), MISSING, rows.device)
    at = slice(new.first, new.first + len(found)) if new.at is None else as_vector(new.at)
    as_vector(placed)[at] = found
    return placed


def _take_special_rows(rows: torch.Tensor, new: Vocabulary, old: Vocabulary) -> Mapping[str, int]:
    """What both sides have one row for takes the old one, whatever it is called there.

    In place; an entry of the same name comes first, and no old row is taken twice. Returned are the
    new rows, by what they are for, that are left without one so. Padding comes last: it is often
    another token's row besides, which is trained as that token's.
    """
    left = {}
    for name, mine in sorted(new.special.items(), key=lambda item: item[0] == _PAD_TOKEN):
        theirs = old.special.get(name, ())
        if name in (OOV, PADDING) or len(mine) != 1 or len(theirs) != 1:
            continue
        if int(rows[mine.start]) >= 0:
            continue
        if bool((rows == theirs[0]).any()):
            left[name] = mine.start
        else:
            rows[mine.start] = theirs[0]
    return left


def _take_oov_rows(
    rows: torch.Tensor, new: Vocabulary, old: Vocabulary, old_buckets: int | None
) -> None:
    """OOV rows take old ones where they mean the same: one for all, or one hash, or it is said."""
    mine, theirs = new.special.get(OOV, range(0)), old.special.get(OOV, range(0))
    has_one_hash = len(mine) == 1 or (new.oov_hash == old.oov_hash != "")
    if old_buckets == 0:  # nor by what their token is called
        rows[mine.start : mine.stop] = MISSING
    elif len(mine) == len(theirs) and (old_buckets or has_one_hash):
        rows[mine.start : mine.stop] = torch.arange(theirs.start, theirs.stop, device=rows.device)


def _remapping_of(rows: torch.Tensor, new: Vocabulary, old: Vocabulary) -> Remapping:
    """The rows with their account: each is an entry's, an OOV row or stands for nothing."""
    oov = new.special.get(OOV, range(0))
    mask = new.special.get(MASK, range(0))
    parts = (rows, rows[oov.start : oov.stop], rows[mask.start : mask.stop])
    found, num_oov_copied, num_masks = map(count_with_old_row, parts)
    num_present, num_named = found - num_oov_copied - num_masks, _count_named(new)
    return Remapping(
        rows=rows,
        num_present=num_present,
        num_new=num_named - num_present,
        num_oov=len(oov),
        num_oov_copied=num_oov_copied,
        num_dropped=_count_named(old) - found + _taken_apart(rows, old),
        num_old=len(old),
        old_rows=extremes(rows)[1] + 1 if found else 0,
        num_vacant=len(rows) - num_named - len(oov),
        num_vacant_copied=num_masks,
        mask=mask,
        num_reused=_count_reused(rows, new, old),
        is_padded=new.is_padded,
        is_old_padded=old.is_padded,
    )


def _count_reused(rows: torch.Tensor, new: Vocabulary, old: Vocabulary) -> int:
    """How many entries are new that have the numbers of rows that others had."""
    at = positions(rows < 0)
    at = at[at < len(old)]
    return int(((new.numbers_at(at) >= 0) & (old.numbers_at(at) >= 0)).sum()) if len(at) else 0


def _taken_apart(rows: torch.Tensor, old: Vocabulary) -> int:
    """How many take an old row that is no entry's: for what is not listed, or for no input.

    Their tokens are entries elsewhere: `[UNK]` of Keras stands in a file as any other.
    """
    parts = [part for name in (OOV, MASK) if (part := old.special.get(name))]
    return sum(int(((rows >= part.start) & (rows < part.stop)).sum()) for part in parts)


def _count_named(vocabulary: Vocabulary) -> int:
    """Rows that stand for an entry, or for what only one row is for; not those of OOV or a mask."""
    count = len(vocabulary.listed)
    for name, rows in vocabulary.special.items():
        if name in (OOV, MASK):
            count -= _listed_in(vocabulary, rows)
        elif name != PADDING:
            count += len(rows) - _listed_in(vocabulary, rows)
    return count


def _listed_in(vocabulary: Vocabulary, rows: range) -> int:
    """How many of some rows have an entry."""
    if not len(rows):
        return 0
    of = vocabulary.entry_rows
    return int(((of >= rows.start) & (of < rows.stop)).sum())


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
        num_dropped=old_size - shared,
        num_old=old_size,
        old_rows=shared,
    )


def find_entries(entries: Entries, known: Vocabulary) -> torch.Tensor:
    """For each entry its row in `known`, or -1: int64 on their device.

    Raises VocabularyError if `known` has an entry twice, or one holds text and the other integers.
    """
    if not len(entries):
        return torch.empty(0, dtype=torch.int64, device=entries.device)
    return _rows_between(Vocabulary(entries, len(entries)), known)[0]


def _join(new: Entries, old: Entries, progress: bool | None = None) -> Joined:
    from torch_warmstart.display import progress_bar

    check_one_kind(new, old)
    with progress_bar(work_of(new, old), show=progress) as advance:
        joined = join(new, old, advance)
    if new.is_unsigned != old.is_unsigned and new.ids is not None:
        joined = _without_alike(joined, new.ids)
    check_once(old, joined.repeat, "old")
    return joined


def _without_alike(joined: Joined, ids: torch.Tensor) -> Joined:
    """Without those below zero, which are above all others where ids have no sign."""
    rows = torch.where(ids < 0, MISSING, joined.rows)
    return replace(joined, rows=rows, num_present=int((rows >= 0).sum()))


def _check_no_shared_rows(new: Vocabulary, rows: torch.Tensor, num_old: int) -> None:
    claims = torch.bincount(rows[rows >= 0], minlength=num_old)
    shared = positions(claims > 1)
    if not len(shared):
        return
    numbers = torch.searchsorted(new.entry_rows, positions(rows == shared[0]))
    check_once(new.listed, (int(numbers[0]), int(numbers[1])), "new")
