"""New rows from the pieces into which the old tokenizer cuts a new token's text.

Cut all at once where the tokenizer can, looked up in the old vocabulary by one join, and weighted
by place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.initializers.cutting import Cutter, check_pieces, cutter_of
from torch_warmstart.new_rows.initializers.forms import form_of
from torch_warmstart.new_rows.mixture import Mixture, means_of, mixture_of, normalised
from torch_warmstart.new_rows.rows import NewRows

Weights = Literal["mean", "last", "first", "exp"]
Role = Literal["auto", "input", "output"]
_DECAY = 0.5  # of "exp", from a piece to the next


@dataclass(frozen=True, eq=False, repr=False)
class Subword(RowInitializer):
    """A weighted mean of a token's pieces."""

    pieces: Any
    weights: Weights
    role: Role
    name: ClassVar[str] = "subword"

    def __post_init__(self) -> None:
        check_pieces(self.pieces)

    @property
    def by_role(self) -> bool:
        """Whether the heaviest piece is another one in a head."""
        return self.weights == "exp" and self.role == "auto"

    @functools.cached_property
    def _cutter(self) -> Cutter:
        return cutter_of(self.pieces)

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
        values = new.entries().values(slice(None))
        texts = values if self._cutter.takes_entries else _texts(values, new)
        has_text = torch.tensor([text is not None for text in texts], dtype=torch.bool)
        pieces = self._cutter.cut([text for text in texts if text is not None])
        counts = torch.zeros(len(new), dtype=torch.int64)
        counts[new.has_entry.nonzero().flatten()[has_text]] = pieces.counts
        return counts, _rows_of(pieces.distinct, new)[pieces.numbers]


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


def _rows_of(distinct: Sequence[Any], new: NewRows) -> torch.Tensor:
    """The old row of each piece that occurs, or -1; pieces are entries, or the old table's rows."""
    known = [piece for piece in distinct if piece is not None]
    is_known = torch.tensor([piece is not None for piece in distinct], dtype=torch.bool)
    rows = torch.full((len(distinct),), -1, dtype=torch.int64)
    if not known:
        return rows
    if all(isinstance(piece, int) for piece in known) and _is_text(new):
        if min(known) < 0 or max(known) >= new.old.size:
            raise SettingsError(
                f"{new.name}: init.subword: the tokenizer gives id {max(known):,}, but the "
                f"old vocabulary has {new.old.size:,} rows. Is it the old table's tokenizer?"
            )
        rows[is_known] = torch.tensor(known, dtype=torch.int64)
    else:
        rows[is_known] = new.old.find(new.old.outside.entries(known))
    return rows


def _is_text(new: NewRows) -> bool:
    return new.old.vocabulary is None or new.old.vocabulary.listed.is_text
