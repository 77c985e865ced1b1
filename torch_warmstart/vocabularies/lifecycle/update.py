"""From yesterday's vocabulary and today's counts to today's: who stays, stays where it is."""

from __future__ import annotations

import contextlib
import datetime
import operator
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.display import progress_bar
from torch_warmstart.entries import (
    ENTRY,
    EPOCH,
    LAST_DAY,
    PADDING,
    UNKNOWN,
    Entries,
    Usage,
    Vocabulary,
    give_back_memory,
    positions,
)
from torch_warmstart.errors import (
    SettingsError,
    VocabularyError,
    WarmStartWarning,
    plural,
    with_code,
)
from torch_warmstart.settings import VocabSource
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies.entry_index import index_once, index_work
from torch_warmstart.vocabularies.lifecycle.counting import counted_blocks
from torch_warmstart.vocabularies.lifecycle.order import distinct, joined
from torch_warmstart.vocabularies.loading import header_of, read_vocabulary
from torch_warmstart.vocabularies.refused_entries import check_no_blank_lines, check_one_kind

Numbers = npt.NDArray[np.int64]
Day = datetime.date | np.datetime64 | int | str | None

_BLOCK = 1 << 18  # entries at a time
_MOST_SUM = 1 << 62  # of counts, so that two of them fit in 64 bits
_HEADER = (
    "{}, and is taken as an entry that keeps its row. If the "
    "table has no row for it, each entry has that of its neighbour: take the line out of the file, "
    "or pass the entries behind it as a sequence."
)
_UPDATED = ", updated"  # behind what the vocabulary is called, in messages


@on_cpu
def update_vocabulary(
    old: VocabSource,
    counts: Any,
    *,
    min_count: int = 1,
    expire_after: int | None = None,
    max_size: int | None = None,
    today: Day = None,
    progress: bool | None = None,
) -> Vocabulary:
    """The vocabulary of today: entries that stay keep their rows, others go, new ones come.

    A row whose entry goes is free, and so are gaps and padding. New entries take the free rows,
    lowest first, then rows behind the last; those seen most often come first, and of those seen
    alike the first in the order of their bytes. The same counts in another order make the same
    vocabulary. A new entry in a freed row is new to a warm start: the row and its slots begin anew.

    Args:
        old: What `Vocabulary.load` takes. Special rows stay what they are.
        counts: How often each entry was seen today: a mapping of entry to count, a pair of entries
            and counts, what pandas' `value_counts()` returns of a named column, a table (pandas,
            polars, pyarrow, the path of a Parquet, csv or tsv file) with the columns `entry` and
            `count`, or a `Vocabulary` that has counts, or the path of its file. Entries may be
            there twice. Cells of csv and tsv are text, or integers where `old` has ids.
        min_count: How often an entry must have been seen today to be admitted.
        expire_after: For how many days an entry that is not seen stays. None: it always does.
            Entries of which nothing is known count as seen today.
        max_size: The most rows the vocabulary may have, special ones too. Where there are more,
            the entries that were not seen for longest go; of one day those seen least often, and
            of these the new ones first.
        today: The day that the counts are of: a `datetime.date` (of a time in a time zone, its date
            there), text such as "2026-01-31", or days since 1970-01-01. None: today's date in UTC.
            It is not before a day that `old` knows; of one day there may be several updates, whose
            counts add up.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        The vocabulary, with a `usage`: counts altogether, the day on which each entry was last
        seen, and on which it got its row. `save` writes them too.

    Warns:
        WarmStartWarning: the first line of `old`, a file of lines, looks like a header.

    Raises:
        SettingsError: a setting is impossible, `max_size` is too small for the rows that must
            stay, `today` is before a day that `old` knows, or `counts` holds none.
        VocabularyError: `old` has an entry twice, counts are negative, text is mixed with ids.

    Example:
        >>> vocab = tws.update_vocabulary(["a", "b"], {"b": 2, "c": 9}, today=20001)
        >>> vocab.rows(["a", "b", "c"])
        tensor([0, 1, 2])
        >>> later = tws.update_vocabulary(
        ...     vocab, {"b": 1, "d": 4}, expire_after=0, today=20002
        ... )
        >>> later.rows(["a", "b", "c", "d"])  # "a" and "c" were not seen
        tensor([-1,  1, -1,  0])
    """
    day = _day_of(today)
    min_count = _number("min_count", min_count, least=1)
    expire_after = None if expire_after is None else _number("expire_after", expire_after, least=0)
    max_size = None if max_size is None else _number("max_size", max_size, least=1)
    vocabulary = read_vocabulary(old)
    _check_day(vocabulary, day)
    check_no_blank_lines(vocabulary.listed)
    warning = warning_of(vocabulary)
    if warning:
        warnings.warn(WarmStartWarning(warning), stacklevel=3)  # over `on_cpu`
    seen, strangers, numbers = _count(vocabulary.listed, counts, progress)
    _give_back(vocabulary.listed)
    usage = _used(vocabulary, seen, day)
    is_kept = _is_fresh(vocabulary, usage, day, expire_after)
    new = _admitted(_Newcomers(strangers, numbers, day), min_count)
    del seen, strangers, numbers
    if max_size is not None:
        new = _fit(vocabulary, usage, is_kept, new, max_size)
    rows = _free_rows(vocabulary, is_kept, len(new.counts))
    _check_size(rows, vocabulary, is_kept, max_size)
    columns = [usage.counts, usage.last_seen, usage.born]
    del usage
    _give_back(vocabulary.listed)
    updated = _put_together(vocabulary, columns, is_kept, new, rows)
    return updated if max_size is None else updated.head(max_size)  # nothing is behind it


def warning_of(old: Vocabulary) -> str:
    """What is probably a mistake about the vocabulary that is updated, or ""."""
    header = header_of(old.listed)
    return with_code(_HEADER.format(header), "header-as-entry") if header else ""


def _give_back(listed: Entries) -> None:
    """What the step before has left; of few entries it is not worth the walk through the heap."""
    if len(listed) > _BLOCK:
        give_back_memory()


@frozen(eq=False)
class _Newcomers:
    """Entries that are to be admitted, how often each was seen, and on which day."""

    entries: Entries
    counts: Numbers
    day: int

    def take(self, at: Numbers) -> _Newcomers:
        """Those of these numbers, in this order."""
        return _Newcomers(self.entries.take(torch.from_numpy(at)), self.counts[at], self.day)


def _day_of(today: Day) -> int:
    if today is None:
        today = datetime.datetime.now(datetime.timezone.utc).date()
    day, given = -1, today
    if isinstance(today, str):
        with contextlib.suppress(ValueError):
            today = datetime.date.fromisoformat(today)
    if isinstance(today, np.datetime64):
        day = -1 if np.isnat(today) else int(today.astype("datetime64[D]").astype(np.int64))
    elif isinstance(today, datetime.date):
        with contextlib.suppress(ValueError):  # pandas' NaT is a date, and no day
            day = today.toordinal() - EPOCH
    elif not isinstance(today, bool | np.bool_ | str):
        with contextlib.suppress(TypeError):
            day = operator.index(today)
    if not 0 <= day <= LAST_DAY:
        raise SettingsError(
            "today is a datetime.date from 1970 on, its text such as '2024-10-04', or as many days "
            f"since 1970-01-01 (20,000 is {_date(20_000)}), not {given!r:.60}."
        )
    return day


def _date(day: int) -> datetime.date:
    return datetime.date.fromordinal(day + EPOCH)


def _check_day(vocabulary: Vocabulary, day: int) -> None:
    """Days go forward: by one of before, what was seen since would count as not seen for longer."""
    usage = vocabulary.usage
    if usage is None or not len(usage):
        return
    last = max(int(usage.last_seen.max()), int(usage.born.max()))
    if day < last:
        raise SettingsError(
            f"today is {_date(day)}, but {vocabulary.origin} has entries that were seen on "
            f"{_date(min(last, LAST_DAY))}: days go forward. Add counts that come late to those "
            "of a later day, or begin again from the vocabulary of the day before."
        )


def _number(name: str, value: Any, least: int) -> int:
    number = least - 1
    if not isinstance(value, bool | np.bool_):
        with contextlib.suppress(TypeError):
            number = operator.index(value)
    if number < least:
        raise SettingsError(f"{name} is a whole number from {least} on, not {value!r}.")
    return number


# -- counting --------------------------------------------------------------------------------------


def _count(
    listed: Entries, counts: Any, progress: bool | None
) -> tuple[torch.Tensor, Entries, Numbers]:
    """How often each entry was seen; and what is not listed, each once, with its counts."""
    seen, others, numbers = _counted(listed, counts, progress)
    if not others:
        return seen, listed.slice(0, 0), np.zeros(0, dtype=np.int64)
    _give_back(listed)
    unlisted = np.concatenate(numbers)
    if float(unlisted.sum(dtype=np.float64)) >= _MOST_SUM:
        raise _beyond()
    return seen, *distinct(joined(others, "the counts"), unlisted)


def _counted(
    listed: Entries, counts: Any, progress: bool | None
) -> tuple[torch.Tensor, list[Entries], list[Numbers]]:
    """How often each entry was seen; and block by block what is not listed, with its counts."""
    seen = torch.zeros(len(listed), dtype=torch.int64)
    others: list[Entries] = []
    numbers: list[Numbers] = []
    counted = 0
    title = "Update"
    with progress_bar(index_work(listed), show=progress, title=title) as advance:
        index = index_once(listed, advance)
        for entries, here in counted_blocks(counts, listed):
            listed = check_alike(listed, entries)
            found = index.find(entries)
            at = positions(found >= 0)
            seen.index_add_(0, found[at], here[at])
            _check_sums(seen.index_select(0, found[at]))
            missing = positions((found < 0) & (here > 0))
            if len(missing):
                others.append(joined([entries.take(missing)], "the counts"))
                numbers.append(here[missing].numpy())
            counted += len(entries)
            advance(f"Counting: {counted:,} entries", 0)
    return seen, others, numbers


def _check_sums(sums: torch.Tensor) -> None:
    if len(sums) and int(sums.max()) >= _MOST_SUM:
        raise _beyond()


def _beyond() -> VocabularyError:
    return VocabularyError(
        f"The counts add up to more than {_MOST_SUM:,}, which nobody has counted: are they "
        "numbers of something else?"
    )


def check_alike(listed: Entries, entries: Entries) -> Entries:
    """The listed entries, as of the other's kind; VocabularyError if they are of another."""
    if len(entries):
        check_one_kind(listed, entries)
    if listed.ids is None or entries.ids is None or listed.is_unsigned == entries.is_unsigned:
        return listed
    signed = entries if listed.is_unsigned else listed
    assert signed.ids is not None
    if bool((signed.ids < 0).any()):
        raise VocabularyError(
            f"{signed.origin} has ids below zero and the other side ids from 2**63 on; give both "
            "as the same kind."
        )
    return replace(listed, is_unsigned=True)


def _used(vocabulary: Vocabulary, seen: torch.Tensor, day: int) -> Usage:
    """The usage after today."""
    known = vocabulary.usage
    count = len(vocabulary.listed)
    if known is None:
        days = torch.full((count,), day, dtype=torch.int32)
        return Usage(seen, days, torch.full((count,), UNKNOWN, dtype=torch.int32))
    _check_sums(known.counts)
    is_today = (seen > 0) | (known.last_seen == UNKNOWN)
    last = known.last_seen.masked_fill(is_today, day)
    return Usage(seen.add_(known.counts), last, known.born)


def _is_fresh(
    vocabulary: Vocabulary, usage: Usage, day: int, expire_after: int | None
) -> torch.Tensor:
    """Which entries stay: those seen of late, and those of special rows."""
    if expire_after is None:
        return torch.ones(len(usage), dtype=torch.bool)
    first = max(day - expire_after, UNKNOWN)  # a limit beyond all days fits no dtype
    return (usage.last_seen >= first) | _is_special(vocabulary)


def _is_special(vocabulary: Vocabulary) -> torch.Tensor:
    """Which entries have a row that is for something of its own: a tokenizer's padding token."""
    special = torch.zeros(len(vocabulary.listed), dtype=torch.bool)
    rows = vocabulary.entry_rows
    for span in vocabulary.special.values():
        first, stop = torch.searchsorted(rows, torch.tensor([span.start, span.stop])).tolist()
        special[first:stop] = True
    return special


def _admitted(new: _Newcomers, min_count: int) -> _Newcomers:
    """Those seen often enough, most often first; they come in the order of their bytes."""
    often = np.flatnonzero(new.counts >= min_count)
    return new.take(often[np.argsort(-new.counts[often], kind="stable")])


# -- not more than max_size ------------------------------------------------------------------------


def _fit(
    vocabulary: Vocabulary, usage: Usage, is_kept: torch.Tensor, new: _Newcomers, max_size: int
) -> _Newcomers:
    """Lets go of what is too much: entries in `is_kept`, in place, and some of the new ones."""
    reserved = len(_special_rows_without_entry(vocabulary))
    excess = int(is_kept.sum()) + len(new.counts) + reserved - max_size
    if excess <= 0:
        return new
    may_go = positions(is_kept & ~_is_special(vocabulary)).numpy()
    today = np.full(len(new.counts), new.day, np.int32)
    days = np.concatenate([usage.last_seen.numpy()[may_go], today])
    counts = np.concatenate([usage.counts.numpy()[may_go], new.counts])
    if excess > len(days):
        raise SettingsError(
            f"max_size={max_size:,} is less than the {excess - len(days) + max_size:,} rows that "
            "are special."
        )
    goes = _least_used(days, counts, excess)
    is_kept[torch.from_numpy(may_go[goes[: len(may_go)]])] = False
    return new.take(np.flatnonzero(~goes[len(may_go) :]))


def _least_used(days: npt.NDArray[np.int32], counts: Numbers, excess: int) -> npt.NDArray[np.bool_]:
    """Marks so many: those of the earliest days; of one day the smallest counts, the last first."""
    first = int(days.min())
    until = np.cumsum(np.bincount(days - first))
    last_day = first + int(np.searchsorted(until, excess))
    goes: npt.NDArray[np.bool_] = days < last_day
    more = excess - int(goes.sum())
    at = np.flatnonzero(days == last_day)
    most = np.partition(counts[at], more - 1)[more - 1]
    goes[at[counts[at] < most]] = True
    alike = at[counts[at] == most]
    goes[alike[len(alike) - (excess - int(goes.sum())) :]] = True
    return goes


# -- rows ------------------------------------------------------------------------------------------


def _special_rows_without_entry(vocabulary: Vocabulary) -> Numbers:
    """Rows that no entry may get: those of OOV, the mask and the like, without padding."""
    spans = [np.arange(span.start, span.stop) for span in _never_free(vocabulary).values()]
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *spans]))
    return np.setdiff1d(rows, vocabulary.entry_rows.numpy()) if len(rows) else rows


def _never_free(vocabulary: Vocabulary) -> dict[str, range]:
    """Special rows that stay what they are; an entry may take a row of padding."""
    return {name: span for name, span in vocabulary.special.items() if name != PADDING}


def _free_rows(vocabulary: Vocabulary, is_kept: torch.Tensor, count: int) -> Numbers:
    """So many rows without an entry, lowest first, then those behind the last."""
    special = _special_rows_without_entry(vocabulary)
    most = len(special) + int(is_kept.sum()) + count  # as many rows have enough free ones
    taken = np.zeros(min(len(vocabulary), most), dtype=bool)
    taken[special[special < len(taken)]] = True
    for _, rows in _kept_rows(vocabulary, is_kept):
        taken[rows[rows < len(taken)]] = True
    free = np.flatnonzero(~taken)[:count]
    behind = np.arange(len(vocabulary), len(vocabulary) + count - len(free))
    return np.concatenate([free, behind])


def _kept_rows(vocabulary: Vocabulary, is_kept: torch.Tensor) -> Iterator[tuple[slice, Numbers]]:
    """Of block after block of listed entries the rows of those that stay, ascending."""
    for start in range(0, len(is_kept), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(is_kept)))
        if vocabulary.at is not None:
            rows = vocabulary.at[block].numpy()
        else:
            rows = np.arange(vocabulary.first + block.start, vocabulary.first + block.stop)
        yield block, rows[is_kept[block].numpy()]


def _check_size(
    rows: Numbers, vocabulary: Vocabulary, is_kept: torch.Tensor, max_size: int | None
) -> None:
    if max_size is None:
        return
    last = max([int(rows[-1]) if len(rows) else -1, _last_kept(vocabulary, is_kept)])
    last = max([last, *(span.stop - 1 for span in _never_free(vocabulary).values())])
    if last >= max_size:
        raise SettingsError(
            f"max_size={max_size:,}, but {vocabulary.origin} has "
            f"{plural(len(vocabulary), 'row')}, and entries that stay keep theirs, up to row "
            f"{last:,}. A smaller table needs a new vocabulary: Vocabulary.load(entries), and a "
            "VocabInfo that names both."
        )


def _last_kept(vocabulary: Vocabulary, is_kept: torch.Tensor) -> int:
    """The highest row of an entry that stays; -1 without any."""
    lasts = (int(rows[-1]) for _, rows in _kept_rows(vocabulary, is_kept) if len(rows))
    return max(lasts, default=-1)


# -- putting together ------------------------------------------------------------------------------


@frozen(eq=False)
class _Merge:
    """Where entries that stay and new ones come, in the order of their rows.

    Columns are filled block by block, so that of what is as long as the vocabulary there is the
    result and no copy beside it.
    """

    vocabulary: Vocabulary
    is_kept: torch.Tensor
    new_rows: Numbers  # ascending
    size: int
    new_at: Numbers  # where the new ones come

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[np.bool_], Numbers]]:
        """Of each block which entries stay, and where these come."""
        before = 0
        for block, rows in _kept_rows(self.vocabulary, self.is_kept):
            at = np.searchsorted(self.new_rows, rows)
            at += np.arange(before, before + len(rows))
            before += len(rows)
            yield block, self.is_kept[block].numpy(), at

    def column(self, old: torch.Tensor, new: Any) -> torch.Tensor:
        """A column of both."""
        merged = np.empty(self.size, dtype=old.numpy().dtype)
        for block, stays, at in self.blocks():
            merged[at] = old[block].numpy()[stays]
        merged[self.new_at] = new
        return torch.from_numpy(merged)

    def rows(self) -> torch.Tensor:
        """The rows of both."""
        merged = np.empty(self.size, dtype=np.int64)
        kept = (rows for _, rows in _kept_rows(self.vocabulary, self.is_kept))
        for (_, _, at), rows in zip(self.blocks(), kept, strict=True):
            merged[at] = rows
        merged[self.new_at] = self.new_rows
        return torch.from_numpy(merged)

    def entries(self, new: Entries) -> Entries:
        """The entries of both."""
        old = self.vocabulary.listed
        origin = f"{old.origin.removesuffix(_UPDATED)}{_UPDATED}"
        if old.ids is not None and new.ids is not None:
            is_unsigned = old.is_unsigned or new.is_unsigned
            ids = self.column(old.ids, new.ids.numpy())
            return Entries(origin, ENTRY, ids=ids, is_unsigned=is_unsigned)
        starts, lengths = np.empty(self.size, np.int64), np.empty(self.size, np.int64)
        for block, stays, at in self.blocks():
            starts[at], lengths[at] = (part.numpy()[stays] for part in old.places(block))
        text = old.text
        if len(new):
            new_starts, new_lengths = (part.numpy() for part in new.places(slice(None)))
            starts[self.new_at], lengths[self.new_at] = new_starts + len(text), new_lengths
            text = torch.cat([text, new.text])
        places = torch.from_numpy(starts), torch.from_numpy(lengths)
        return Entries(origin, ENTRY, text, places[0], lengths=places[1])


def _merge_of(vocabulary: Vocabulary, is_kept: torch.Tensor, new_rows: Numbers) -> _Merge:
    """Where each comes: behind as many as have a lower row."""
    new_at = np.arange(len(new_rows))
    before = done = 0
    for _, rows in _kept_rows(vocabulary, is_kept):
        until = int(np.searchsorted(new_rows, rows[-1])) if len(rows) else done
        new_at[done:until] += before + np.searchsorted(rows, new_rows[done:until])
        before, done = before + len(rows), until
    new_at[done:] += before
    return _Merge(vocabulary, is_kept, new_rows, before + len(new_rows), new_at)


def _put_together(
    vocabulary: Vocabulary,
    columns: list[torch.Tensor],
    is_kept: torch.Tensor,
    new: _Newcomers,
    new_rows: Numbers,
) -> Vocabulary:
    """The entries that stay and the new ones, in the order of their rows; column by column.

    Those of the usage are taken out of the list, so that nobody holds them when they are copied.
    """
    merge = _merge_of(vocabulary, is_kept, new_rows)
    last = max(_last_kept(vocabulary, is_kept), int(new_rows[-1]) if len(new_rows) else -1)
    rows = None if last == merge.size - 1 else merge.rows()
    special = dict(_special_after(vocabulary, is_kept, new_rows, last))
    days = np.full(len(new_rows), new.day, dtype=np.int32)
    merged = [merge.column(columns.pop(0), those) for those in (new.counts, days, days)]
    _give_back(vocabulary.listed)
    return Vocabulary(
        merge.entries(new.entries),
        max(len(vocabulary), last + 1),
        rows,
        special=special,
        oov_hash=vocabulary.oov_hash,
        is_padded=vocabulary.is_padded,
        usage=Usage(*merged),
    )


def _special_after(
    vocabulary: Vocabulary, is_kept: torch.Tensor, new_rows: Numbers, last: int
) -> Iterator[tuple[str, range]]:
    """Special rows; of padding what no entry has taken, which are its last rows."""
    stay = _never_free(vocabulary)
    yield from stay.items()
    for name, span in vocabulary.special.items():
        if name not in stay and last < span.stop:
            mine = (rows for _, rows in _kept_rows(vocabulary, is_kept))
            inside = [rows[rows < span.stop].max(initial=-1) for rows in (*mine, new_rows)]
            yield name, range(max(span.start, int(max(inside)) + 1), span.stop)
