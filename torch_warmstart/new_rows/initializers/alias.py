"""New rows that are one old row each: another name of the same thing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from torch_warmstart.entries import (
    BY_REMAINDER,
    FARMHASH,
    INSIDE_A_WORD,
    SPACE_OF_BYTES,
    SPACE_OF_PIECES,
    Entries,
    Vocabulary,
    casefolded,
    hash_buckets,
)
from torch_warmstart.errors import SettingsError, plural, shown_entry
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.initializers.token_texts import form_of
from torch_warmstart.new_rows.mixture import Mixture, nothing, one_hot
from torch_warmstart.new_rows.rows import NewRows
from torch_warmstart.values import Alike

_SHORTEST = 2  # bytes of a prefix behind what says that a word begins, or goes on
_SIGNS = re.compile(
    b"(?:%b)*" % b"|".join([SPACE_OF_BYTES, SPACE_OF_PIECES, INSIDE_A_WORD, rb"\s"])
)


@dataclass(frozen=True, eq=False, repr=False)
class Alias(RowInitializer):
    """The row of another entry."""

    mapping: Alike | Mapping[Any, Any]
    num_oov_buckets: int | None
    name: ClassVar[str] = "alias"

    def __str__(self) -> str:
        return "alias" if isinstance(self.mapping, Mapping) else f"alias({self.mapping})"

    def __call__(self, new: NewRows) -> Mixture:
        entries = new.entries()
        if not len(entries):
            return nothing(len(new))
        found = torch.full((len(new),), -1, dtype=torch.int64)
        found[new.has_entry] = self._find(entries, new)
        return one_hot(found)

    def _find(self, entries: Entries, new: NewRows) -> torch.Tensor:
        how = self.mapping
        if isinstance(how, Mapping):
            return _by_mapping(entries, how, new)
        if how == "oov_bucket":
            return self._by_bucket(entries, new)
        rows, old = new.old.entries()
        assert new.vocabulary is not None
        assert new.old.vocabulary is not None
        if not (old.is_text and entries.is_text):
            raise SettingsError(f'{new.name}: init.alias("{how}") compares text.')
        mine, its = (_texts(some) for some in (entries, old))
        if how == "prefix":
            found = _by_prefix(mine, its)
        elif how == "casefold":
            found = _by_key(map(casefolded, mine), map(casefolded, its))
        else:
            of_new, of_old = form_of(new.vocabulary.listed), form_of(new.old.vocabulary.listed)
            found = _by_key(map(of_new, mine), map(of_old, its))
        return torch.where(found >= 0, rows[found.clamp(min=0)], -1)

    def _by_bucket(self, entries: Entries, new: NewRows) -> torch.Tensor:
        """The OOV row that an entry has used until now, by the hash that chose it."""
        oov = self._oov_of(new)
        known = new.old.vocabulary
        hashed_by = known.oov_hash if known is not None and len(oov) > 1 else ""
        if hashed_by == BY_REMAINDER and entries.ids is not None:
            return entries.ids.remainder(len(oov)) + oov.start
        if hashed_by not in ("", FARMHASH):
            raise SettingsError(
                f'{new.name}: init.alias("oov_bucket") knows the hash of TensorFlow\'s tables, but '
                f"the old vocabulary's OOV rows were chosen by {hashed_by.partition(':')[0]}."
            )
        return hash_buckets(entries, len(oov)) + oov.start

    def _oov_of(self, new: NewRows) -> range:
        """The old OOV rows: the vocabulary's own, or as many behind it as are said."""
        old, count = new.old, self.num_oov_buckets
        if old.oov and count not in (None, len(old.oov)):
            raise SettingsError(
                f'{new.name}: init.alias("oov_bucket", num_oov_buckets={count}), but the old '
                f"vocabulary has {plural(len(old.oov), 'OOV row')}. Leave num_oov_buckets out."
            )
        if old.oov:
            return old.oov
        if count is None:
            raise SettingsError(
                f'{new.name}: init.alias("oov_bucket") must know how many OOV rows the old '
                'variable had behind its vocabulary: say init.alias("oov_bucket", '
                "num_oov_buckets=...)."
            )
        if old.size + count > old.height:
            raise SettingsError(
                f'{new.name}: init.alias("oov_bucket", num_oov_buckets={count}), but behind the '
                f"vocabulary's the old variable has {plural(old.height - old.size, 'row')}."
            )
        return range(old.size, old.size + count)


def _by_mapping(entries: Entries, mapping: Mapping[Any, Any], new: NewRows) -> torch.Tensor:
    """By what the user says; raises SettingsError where an old entry is not there."""
    outside = new.old.outside
    keys = outside.entries(list(mapping))
    targets = new.old.find(outside.entries(list(mapping.values())))
    if bool((targets < 0).any()):
        missing = [v for v, row in zip(mapping.values(), targets.tolist(), strict=True) if row < 0]
        raise SettingsError(
            f"{new.name}: init.alias: {len(missing):,} of the old entries it names (such as "
            f"{shown_entry(missing[0])}) are not in the old vocabulary."
        )
    found = outside.find(entries, Vocabulary(keys, len(keys)))
    return torch.where(found >= 0, targets[found.clamp(min=0)], -1)


def _by_key(new: Iterable[bytes | None], old: Iterable[bytes | None]) -> torch.Tensor:
    """The number of the first old entry of the same key: common ones mostly come first."""
    known: dict[bytes, int] = {}
    for number, key in enumerate(old):
        if key is not None:
            known.setdefault(key, number)
    return torch.tensor([known.get(key, -1) if key else -1 for key in new], dtype=torch.int64)


def _texts(entries: Entries) -> list[bytes]:
    return [value for value in entries.values(slice(None)) if isinstance(value, bytes)]


def _shortest(value: bytes) -> int:
    """How long a prefix of an entry is at least: a lone `Ġ` stands in front of every word."""
    signs = _SIGNS.match(value)
    return _SHORTEST + (signs.end() if signs else 0)


def _by_prefix(new: Sequence[bytes], old: Sequence[bytes]) -> torch.Tensor:
    """The number of the longest old entry that a new one begins with."""
    known = {value: number for number, value in enumerate(old)}
    longest = max(map(len, known), default=0)
    found = [
        next(
            (
                known[value[:size]]
                for size in range(min(len(value) - 1, longest), _shortest(value) - 1, -1)
                if value[:size] in known
            ),
            -1,
        )
        for value in new
    ]
    return torch.tensor(found, dtype=torch.int64)
