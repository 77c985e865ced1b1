"""New rows from the pieces into which the old tokenizer cuts a new token's text.

Cut all at once where the tokenizer can, looked up in the old vocabulary by one join, and weighted
by place.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.initializers.cutting import Cut, Pieces, check_pieces, cut_by, listed
from torch_warmstart.new_rows.initializers.token_texts import form_of
from torch_warmstart.new_rows.mixture import Mixture, means_of, mixture_of, normalised
from torch_warmstart.new_rows.rows import NewRows
from torch_warmstart.values import PieceWeights, TableRole

_DECAY = 0.5  # of "exp", from a piece to the next


@dataclass(frozen=True, eq=False, repr=False)
class Subword(RowInitializer):
    """A weighted mean of a token's pieces."""

    pieces: Any
    weights: PieceWeights
    role: TableRole
    name: ClassVar[str] = "subword"

    def __post_init__(self) -> None:
        check_pieces(self.pieces)

    @property
    def by_role(self) -> bool:
        """Whether the heaviest piece is another one in a head."""
        return self.weights == "exp" and self.role == "auto"

    @functools.cached_property
    def _cut(self) -> Cut:
        return cut_by(self.pieces)

    def __call__(self, new: NewRows) -> Mixture:
        counts, old_rows = self._pieces(new)
        row_of = torch.repeat_interleave(torch.arange(len(new)), counts)
        if not bool((old_rows >= 0).all()):
            row_of, old_rows = row_of[old_rows >= 0], old_rows[old_rows >= 0]
            counts = torch.bincount(row_of, minlength=len(new))
        if self.weights == "mean":
            return means_of(counts, old_rows)
        place = torch.arange(len(row_of)) - (torch.cumsum(counts, 0) - counts)[row_of]
        weights = self._weigh(place, counts[row_of] - 1 - place, new)
        row_of, old_rows, weights = (x[weights > 0] for x in (row_of, old_rows, weights))
        return mixture_of(row_of, old_rows, normalised(row_of, weights, len(new)), len(new))

    def _weigh(self, place: torch.Tensor, behind: torch.Tensor, new: NewRows) -> torch.Tensor:
        """A piece's weight, by how many stand before and behind it.

        "exp" is heaviest where a model needs it: what it has just read is a token's last piece, and
        what it says first is the first one.
        """
        if self.weights != "exp":
            return ((behind if self.weights == "last" else place) == 0).float()
        role = new.role if self.role == "auto" else self.role
        return _DECAY ** (place if role in ("output", "bias") else behind).double()

    def _pieces(self, new: NewRows) -> tuple[torch.Tensor, torch.Tensor]:
        """How many pieces each row has, and the old row of each, or -1.

        Rows without an entry, or without text, have none.
        """
        is_cut, pieces = self._mapped(new) if self._is_mapping else self._cut_texts(new)
        counts = torch.zeros(len(new), dtype=torch.int64)
        counts[new.has_entry.nonzero().flatten()[is_cut]] = pieces.counts
        rows = _rows_of(pieces.names, new)
        return counts, rows if pieces.numbers is None else rows[pieces.numbers]

    @property
    def _is_mapping(self) -> bool:
        return isinstance(self.pieces, Mapping)

    def _mapped(self, new: NewRows) -> tuple[torch.Tensor, Pieces]:
        """Which of the new entries are in the mapping, and their pieces."""
        keys = new.old.outside.entries(list(self.pieces))
        found = new.old.outside.find(new.entries(), Vocabulary(keys, len(keys)))
        pieces = list(self.pieces.values())
        return found >= 0, listed([pieces[at] for at in found[found >= 0].tolist()])

    def _cut_texts(self, new: NewRows) -> tuple[torch.Tensor, Pieces]:
        """Which of the new entries have text, and its pieces."""
        texts = _texts(new.entries().values(slice(None)), new)
        has_text = torch.tensor([text is not None for text in texts], dtype=torch.bool)
        return has_text, self._cut([text for text in texts if text is not None])


def _texts(values: Sequence[Any], new: NewRows) -> list[str | None]:
    """Tokens' texts; None for special ones, and for bytes that are no text by themselves."""
    assert new.vocabulary is not None
    if not new.vocabulary.listed.is_text:
        raise SettingsError(
            f"{new.name}: init.subword cuts text, but the new vocabulary's entries are integers."
        )
    form = form_of(new.vocabulary.listed)
    return [_decoded(form(value)) for value in values]


def _decoded(text: bytes | None) -> str | None:
    if not text:
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _rows_of(names: Sequence[Any], new: NewRows) -> torch.Tensor:
    """The old row of each piece, or -1; pieces are entries, or the old table's rows."""
    kinds = set(map(type, names))
    if type(None) in kinds:
        is_known = torch.tensor([name is not None for name in names])
        rows = torch.full((len(names),), -1, dtype=torch.int64)
        rows[is_known] = _rows_of([name for name in names if name is not None], new)
        return rows
    if not names:
        return torch.empty(0, dtype=torch.int64)
    if kinds & {bool, np.bool_}:
        raise SettingsError(
            f"{new.name}: init.subword: a piece is an entry of the old vocabulary or its id, not "
            f"{next(name for name in names if isinstance(name, bool | np.bool_))!r}."
        )
    if not (_is_text(new) and all(issubclass(kind, int | np.integer) for kind in kinds)):
        return new.old.find(new.old.outside.entries(names))
    rows = torch.tensor([*map(int, names)], dtype=torch.int64)
    wrong = rows[(rows < 0) | (rows >= new.old.size)]
    if len(wrong):
        raise SettingsError(
            f"{new.name}: init.subword: the tokenizer gives id {int(wrong[0]):,}, but the "
            f"old vocabulary has {new.old.size:,} rows. Is it the old table's tokenizer?"
        )
    return rows


def _is_text(new: NewRows) -> bool:
    return new.old.vocabulary is None or new.old.vocabulary.listed.is_text
