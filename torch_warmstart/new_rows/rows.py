"""What an initialiser is told: which rows are new, and what it may ask about the old ones.

Entries are known while planning. Values of the old table are read when the plan is carried out,
through `Values`; until then whoever asks for them is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch

from torch_warmstart.dtypes import summed_in
from torch_warmstart.entries import MASK, OOV, PADDING, Entries, Vocabulary
from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.moments import (
    ALL_NEVERTHELESS,
    BLOCK,
    NONE_TRAINED,
    Survey,
    Values,
    mean_of,
    std_of,
    survey_of,
    untrained,
)
from torch_warmstart.new_rows.reserved import reserved_rows
from torch_warmstart.values import WhichRows, frozen

Role = Literal["input", "output", "bias", "other"]
TOGETHER = 8192  # rows that are made at a time, in runs of which the first is row 0


class Table(Protocol):
    """A table from outside whose rows have entries: another model's, or word vectors."""

    vocabulary: Vocabulary
    width: int
    dtype: torch.dtype  # what its rows are read in: float32, float64 where it is that

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Some of its rows: `[len(rows), width]` on the CPU."""


class Outside(Protocol):
    """How entries and tables are read and joined, which others decide."""

    def entries(self, source: Any) -> Entries:
        """A sequence of str, bytes or int, every item of which is an entry; on the CPU."""

    def find(self, entries: Entries, known: Vocabulary) -> torch.Tensor:
        """For each entry its row in `known`, or -1: int64 on the CPU."""

    def table(self, source: Any) -> Table:
        """A table from outside: `(vocabulary, tensor | (url, key))`, or a file of vectors."""


def has_entry(vocabulary: Vocabulary, rows: torch.Tensor) -> torch.Tensor:
    """Which rows stand for an entry of their own: bool of their length.

    What the rows for all that is not listed and for no input are called is none.
    """
    is_entry = vocabulary.numbers_at(rows) >= 0
    for name in (OOV, MASK, PADDING):
        special = vocabulary.special.get(name, range(0))
        is_entry &= (rows < special.start) | (rows >= special.stop)
    return is_entry


@frozen(eq=False, slots=False)
class OldRows:
    """The old table.

    Args:
        size: How many rows its vocabulary describes; what lies behind them is none of these.
        height: How many rows there are, those behind the vocabulary's too.
        vocabulary: What its rows stand for, and its OOV rows; None where rows go by position.
        outside: How entries and tables are read.
        name: The variable's.
        values: Its values; None while planning.
        table: Of a bias, the table that it belongs to, which tells better what is trained.
    """

    size: int
    height: int
    vocabulary: Vocabulary | None
    outside: Outside
    name: str
    values: Values | None = None
    table: OldRows | None = None

    @property
    def oov(self) -> range:
        """Its OOV rows, as far as they are known."""
        return range(0) if self.vocabulary is None else self.vocabulary.special.get(OOV, range(0))

    @functools.cached_property
    def named(self) -> torch.Tensor:
        """Which rows stand for an entry of their own: bool of `[size]`. By position all do."""
        if self.vocabulary is None:
            return torch.ones(self.size, dtype=torch.bool)
        return has_entry(self.vocabulary, torch.arange(self.size))

    def why_no_anchor(self, rows: torch.Tensor, has: str, what: str) -> str:
        """Why there is no trained row to go by, of those of a mask.

        They are those that have, or are, something: `has` is its verb.
        """
        count = int(rows.sum())
        if not count:
            return f"none of the old entries {has} {what}. Do both write their entries alike?"
        verb = has if count == 1 else {"has": "have", "is": "are"}[has]
        return (
            f"{count:,} of the old entries {verb} {what}, but none of their rows looks trained: "
            f"{NONE_TRAINED}. {ALL_NEVERTHELESS}"
        )

    def find_in(self, known: Vocabulary) -> torch.Tensor:
        """For each row the row of its entry in `known`, or -1: int64 of `[size]`."""
        found = torch.full((self.size,), -1, dtype=torch.int64)
        if self.vocabulary is not None:
            rows, entries = self.entries()
            found[rows] = self.outside.find(entries, known)
        return found

    def entries(self) -> tuple[torch.Tensor, Entries]:
        """The rows that stand for an entry, ascending, and these entries."""
        if self.vocabulary is None:
            raise SettingsError("The old rows go by position and have no entries.")
        rows = self.named.nonzero().flatten()
        return rows, self.vocabulary.listed.take(self.vocabulary.numbers_at(rows))

    def find(self, entries: Entries) -> torch.Tensor:
        """For each entry its old row, or -1: int64 of `[len(entries)]`."""
        if self.vocabulary is None:
            return torch.full((len(entries),), -1, dtype=torch.int64)
        return self.outside.find(entries, self.vocabulary)

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Some of its rows, flat: of `[len(rows), width]`.

        They are float32; float64 where the old table or the new one is.
        """
        return self._values.read(self._checked(rows))

    def _checked(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows that are there. -1, of what is not found, would be memory that nobody has filled."""
        is_list = isinstance(rows, torch.Tensor) and rows.dtype == torch.int64 and rows.ndim == 1
        if not is_list or ((rows < 0) | (rows >= self.height)).any():
            raise SettingsError(
                f"{self.name}: old.read takes rows from 0 to {self.height - 1:,}, a tensor of "
                "int64 with one axis. An entry that is not there has -1: read the others."
            )
        return rows

    def blocks(self, rows: int = BLOCK) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows that the vocabulary describes, in blocks, each with the number of its first."""
        return self._values.blocks(rows)

    @functools.cached_property
    def trained(self) -> torch.Tensor:
        """Which rows look trained: bool of `[size]`.

        They stand for an entry, are finite and not near zero, and none that is reserved for later.
        """
        reserved = reserved_rows(self.vocabulary, self.size)
        trained = self.named & ~(untrained(self._survey, self.named) | reserved)
        return trained if self.table is None else trained & self.table.trained

    def allowed(self, rows: torch.Tensor, of: WhichRows) -> torch.Tensor:
        """Those of a mask of rows that `of=` lets be asked: the trained ones, or all."""
        return rows & self.trained if of == "trained" else rows

    @functools.cached_property
    def mean(self) -> torch.Tensor:
        """Of the trained rows: float64 of `[width]`."""
        return mean_of(self._survey, self._values, self.trained, self.name)

    @functools.cached_property
    def std(self) -> torch.Tensor:
        """Standard deviation of the trained rows: float64 of `[width]`."""
        return std_of(self._values, self.trained, self.mean)

    @functools.cached_property
    def mean_of_all(self) -> torch.Tensor:
        """Of all rows that stand for an entry: float64 of `[width]`."""
        return mean_of(self._survey, self._values, self.named, self.name)

    @functools.cached_property
    def _survey(self) -> Survey:
        return survey_of(self._values, self.size)

    @property
    def _values(self) -> Values:
        if self.values is None:
            raise SettingsError("An old table's values are read when a plan is carried out.")
        return self.values


@frozen(eq=False, slots=False)
class NewRows:
    """What an initialiser is told of the rows that it is asked for.

    A function whose first parameter is annotated `NewRows` may stand as `backup_initializer` and
    among those of `tws.init`. It returns a `Mixture`, or a tensor of `[len(new), new.width]`.

    Args:
        name: The variable's.
        role: "input" (an embedding, tied or not), "output" (a head), "bias" (one number a row) or
            "other".
        axis: Which axis of the variable the rows are along.
        shape: The variable's.
        dtype: The variable's.
        device: Where the variable is.
        rows: int64 of `[m]`: where they are along the axis.
        ordinals: int64 of `[m]`: their numbers among all new rows of the variable, whatever part of
            them is asked for. What is drawn for a row is drawn by it.
        remapping: int64 of `[n]`: for each row of the variable its old one, or -1.
        vocabulary: The new vocabulary with its OOV rows; rows behind it are padding. None: rows go
            by position.
        old: The old table. `old.vocabulary.rows([...])` are the rows of entries in it, or -1;
            `old.read(rows)` their numbers, `old.mean` the mean of the trained rows, `old.size` how
            many the vocabulary describes.
        seed: What random rows are drawn from.

    Example:
        >>> def first_row(new: tws.NewRows) -> torch.Tensor:
        ...     return new.old.read(torch.zeros(1, dtype=torch.int64)).expand(len(new), -1)
    """

    name: str
    role: Role
    axis: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    rows: torch.Tensor
    ordinals: torch.Tensor
    remapping: torch.Tensor
    vocabulary: Vocabulary | None
    old: OldRows
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Numbers of a row."""
        numbers = 1
        for at, size in enumerate(self.shape):
            numbers *= 1 if at == self.axis else size
        return numbers

    @property
    def made_dtype(self) -> torch.dtype:
        """What its rows are made in before they are cast: float32, or float64 where it is that."""
        return summed_in(self.dtype)

    @property
    def has_entry(self) -> torch.Tensor:
        """Which of the rows stand for an entry of their own: bool of `[m]`.

        OOV rows stand for all that is not listed, gaps and padding for nothing.
        """
        if self.vocabulary is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return has_entry(self.vocabulary, self.rows)

    def entries(self) -> Entries:
        """The entries of the rows that have one, in order."""
        if self.vocabulary is None:
            raise SettingsError(f"{self.name}: its rows go by position and have no entries.")
        rows = self.rows[self.has_entry]
        return self.vocabulary.listed.take(self.vocabulary.numbers_at(rows))

    def only(self, which: torch.Tensor) -> NewRows:
        """Some of the rows, by a mask or by their places among these."""
        return replace(self, rows=self.rows[which], ordinals=self.ordinals[which])

    def with_values(self, old: OldRows, seed: int) -> NewRows:
        """The same rows, now that the old table can be read and the seed is known."""
        return replace(self, old=old, seed=seed)
