"""What has become of entries between two vocabularies, and how much it weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.display import VERSION, progress_bar
from torch_warmstart.entries import Entries, Vocabulary, positions
from torch_warmstart.errors import SettingsError, VocabularyError
from torch_warmstart.settings import VocabSource
from torch_warmstart.values import Fate, frozen
from torch_warmstart.vocabularies.entry_index import MISSING, index_once
from torch_warmstart.vocabularies.join import join, work_of
from torch_warmstart.vocabularies.lifecycle.counting import counted_blocks
from torch_warmstart.vocabularies.lifecycle.update import check_alike
from torch_warmstart.vocabularies.loading import read_vocabulary
from torch_warmstart.vocabularies.refused_entries import check_once

# What an entry can be. All but "dropped" are of the new vocabulary.
#   kept      in both, in the same row
#   moved     in both, in another row
#   returned  in the new one and in an earlier one, but not in the old one
#   new       in the new one only
#   dropped   in the old one only
FATES: tuple[Fate, ...] = get_args(Fate)

_BLOCK = 1 << 20  # entries at a time


@frozen(eq=False, repr=False)
class VocabularyDiff:
    """What has become of the entries of a vocabulary; `print()` shows it.

    Attributes:
        kept, moved, returned, new, dropped: How many entries are so.
        weights: How often the entries of each kind were seen, by the name of the kind; empty where
            no counts are known. By the vocabularies' own counts, "dropped" is by the old one's.
        old_weight: How often all entries of the old one were seen, by the counts of "dropped".
        reused: How many rows stand for another entry than before.
        rows: The rows of the entries of each kind but "kept", by its name: int64, ascending, in the
            new vocabulary; for "dropped" in the old one.
    """

    kept: int
    moved: int
    returned: int
    new: int
    dropped: int
    weights: Mapping[Fate, int]
    old_weight: int
    reused: int
    rows: Mapping[Fate, torch.Tensor]

    def __repr__(self) -> str:
        counts = (f"{getattr(self, fate):,} {fate}" for fate in FATES if getattr(self, fate))
        return f"<VocabularyDiff: {', '.join(counts) or 'no entries'}>"

    @property
    def shares(self) -> Mapping[Fate, float]:
        """Which part each kind is: of what was seen, or where that is not known, of the entries.

        Of "dropped" it is the part of the old vocabulary, of all others of the new one.
        """
        sizes = self.weights or self._entries
        of_new = sum(sizes[fate] for fate in FATES if fate != "dropped")
        of_old, old = self.weights, self.old_weight
        if "dropped" not in of_old:
            of_old, old = self._entries, self.kept + self.moved + self.dropped
        new: dict[Fate, float] = {
            fate: sizes[fate] / max(1, of_new) for fate in FATES if fate != "dropped"
        }
        return {**new, "dropped": of_old["dropped"] / max(1, old)}

    @property
    def _entries(self) -> Mapping[Fate, int]:
        return {fate: getattr(self, fate) for fate in FATES}

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values that `json.dumps` takes, with `version` and `totals`."""
        shares = self.shares
        fates = [
            {
                "fate": fate,
                "entries": getattr(self, fate),
                "seen": self.weights.get(fate),
                "share": shares[fate],
            }
            for fate in FATES
        ]
        totals = {"old": self.kept + self.moved + self.dropped, "reused": self.reused}
        totals["new"] = self.kept + self.moved + self.returned + self.new
        return {
            "version": VERSION,
            "kind": "vocabulary-diff",
            "fates": fates,
            "differs": totals["old"] != self.kept or totals["new"] != self.kept,
            "totals": totals,
        }

    def __str__(self) -> str:
        shares = self.shares
        lines = [
            f"{fate:<9} {getattr(self, fate):>13,}  {shares[fate]:>7.2%}"
            + (", by counts" if fate in self.weights else "")
            + (" of the old" if fate == "dropped" else "")
            for fate in FATES
        ]
        return "\n".join([*lines, f"{'reused':<9} {self.reused:>13,}  rows that stand for another"])


@on_cpu
def diff_vocabularies(
    old: VocabSource,
    new: VocabSource,
    counts: Any = None,
    *,
    earlier: Sequence[VocabSource] = (),
    progress: bool | None = None,
) -> VocabularyDiff:
    """Compares two vocabularies entry by entry.

    Args:
        old: What `Vocabulary.load` takes.
        new: The same.
        counts: How often entries were seen, as in `update_vocabulary`, for the shares. None: as the
            vocabularies say themselves, each for its own entries, if the new one does;
            what is dropped goes by entries if the old one does not.
        earlier: Vocabularies of days before `old`: entries of theirs that `old` does not have and
            `new` has are returned, not new.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        How many entries were kept, moved, returned, dropped or are new, with shares.

    Raises:
        VocabularyError: a vocabulary has an entry twice, or holds text and the other ids.

    Example:
        >>> print(tws.diff_vocabularies(["a", "b"], ["b", "c"], earlier=[["c", "a"]]))
        kept                  0    0.00%
        moved                 1   50.00%
        returned              1   50.00%
        new                   0    0.00%
        dropped               1   50.00% of the old
        reused                2  rows that stand for another
    """
    if isinstance(earlier, str | bytes) or not isinstance(earlier, Sequence):
        raise SettingsError("earlier is a sequence of vocabularies, one a day.")
    before, after = read_vocabulary(old), read_vocabulary(new)
    check_alike(before.listed, after.listed)
    found = _old_numbers(before, after, progress)
    is_missing = found < 0
    strangers = positions(is_missing)
    _check_once(after.listed, strangers)
    back = _is_back(after.listed.take(strangers), earlier)
    has_moved, dropped = _compare(before, after, found)
    at = {
        "moved": positions(has_moved),
        "returned": strangers[back],
        "new": strangers[~back],
    }
    rows = {fate: after.entry_rows[numbers] for fate, numbers in at.items()}
    rows["dropped"] = before.entry_rows[dropped]
    weights, old_weight = _weights(before, after, counts, at, dropped)
    num_kept = len(found) - sum(map(len, at.values()))
    return VocabularyDiff(
        kept=num_kept,
        moved=len(at["moved"]),
        returned=len(at["returned"]),
        new=len(at["new"]),
        dropped=len(dropped),
        weights=weights,
        old_weight=old_weight,
        reused=_reused(before, after, torch.cat([at["moved"], strangers])),
        rows=rows,  # type: ignore[arg-type]
    )


def _old_numbers(before: Vocabulary, after: Vocabulary, progress: bool | None) -> torch.Tensor:
    """For each new entry its number in the old vocabulary, or -1."""
    work = work_of(after.listed, before.listed)
    with progress_bar(work, show=progress, title="Compare") as advance:
        joined = join(after.listed, before.listed, advance)
    check_once(before.listed, joined.repeat)
    if joined.may_share:
        index_once(after.listed)  # which raises, and names the two
    return joined.rows


def _check_once(listed: Entries, strangers: torch.Tensor) -> None:
    """Raises VocabularyError for an entry that is there twice and no old vocabulary has."""
    try:
        index_once(listed.take(strangers))
    except VocabularyError:
        index_once(listed)  # which names them by their places
        raise


def _compare(
    before: Vocabulary, after: Vocabulary, found: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which new entries have another row than before, and the numbers of old ones that are gone."""
    has_moved = torch.zeros(len(found), dtype=torch.bool)
    gone = torch.ones(len(before.listed), dtype=torch.bool)
    old_rows, new_rows = before.entry_rows, after.entry_rows
    for start in range(0, len(found), _BLOCK):
        here = found[start : start + _BLOCK]
        known = positions(here >= 0)
        numbers = here[known]
        gone[numbers] = False
        has_moved[start + known] = old_rows[numbers] != new_rows[start + known]
    return has_moved, positions(gone)


def _is_back(strangers: Entries, earlier: Sequence[VocabSource]) -> torch.Tensor:
    """Which entries are in one of the vocabularies of the days before."""
    back = torch.zeros(len(strangers), dtype=torch.bool)
    if not len(strangers) or not earlier:
        return back
    index = index_once(strangers)
    for source in earlier:
        listed = read_vocabulary(source).listed
        check_alike(strangers, listed)
        for start in range(0, len(listed), _BLOCK):
            found = index.find(listed.slice(start, min(start + _BLOCK, len(listed))))
            back[found[found != MISSING]] = True
    return back


def _reused(before: Vocabulary, after: Vocabulary, changed: torch.Tensor) -> int:
    """How many rows had another entry before."""
    rows = after.entry_rows[changed]
    of_old = before.entry_rows
    if not len(of_old):
        return 0
    at = torch.searchsorted(of_old, rows).clamp(max=len(of_old) - 1)
    return int((of_old[at] == rows).sum())


def _weights(
    before: Vocabulary,
    after: Vocabulary,
    counts: Any,
    at: Mapping[str, torch.Tensor],
    dropped: torch.Tensor,
) -> tuple[dict[Fate, int], int]:
    """How often the entries of each kind were seen, and those of the old vocabulary together."""
    of_dropped: torch.Tensor | None = None
    of_old = None  # where its counts are not those of the new one
    if counts is not None:
        of_new, of_dropped = _counted(counts, after.listed, before.listed.take(dropped))
    elif after.usage is not None:
        of_new = after.usage.counts
        if before.usage is not None:
            of_old, of_dropped = before.usage.counts, before.usage.counts[dropped]
    else:
        return {}, 0
    found: dict[Fate, int] = {
        "moved": int(of_new[at["moved"]].sum()),
        "returned": int(of_new[at["returned"]].sum()),
        "new": int(of_new[at["new"]].sum()),
    }
    kept = int(of_new.sum()) - sum(found.values())
    found = {"kept": kept, **found}
    if of_dropped is None:
        return found, 0
    found["dropped"] = gone = int(of_dropped.sum())
    return found, kept + found["moved"] + gone if of_old is None else int(of_old.sum())


def _counted(counts: Any, *groups: Entries) -> list[torch.Tensor]:
    """How often the entries of each group were seen."""
    indices = [index_once(group) for group in groups]
    seen = [torch.zeros(len(group), dtype=torch.int64) for group in groups]
    for entries, numbers in counted_blocks(counts, groups[0]):
        for group, index, total in zip(groups, indices, seen, strict=True):
            check_alike(group, entries)
            found = index.find(entries)
            at = positions(found >= 0)
            total.index_add_(0, found[at], numbers[at])
    return seen
