"""A table that keeps its ids, as a value: what a checkpoint's `tables()` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

import torch

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import (
    CallbackError,
    CorruptCheckpointError,
    SettingsError,
    VocabularyError,
)
from torch_warmstart.values import frozen

_LOWEST = {"frequency": 0, "version": -1}  # -1: never, as DeepRec writes it
Column = Callable[[], torch.Tensor]


@frozen(eq=False, repr=False, slots=False)  # without slots, for what is read once
class KeyedTable:
    """A table of an embedding whose ids are kept with it; nothing of it is read yet.

    Attributes:
        name: What the table is called.
        values: The key of its values in the checkpoint: a tensor of a row for each key.
        shape: That of the values.
        parts: Of how many pieces it is made.
        slots: The tables of an optimizer's slots, by the slot's name. Each has keys of its own.
        origin: Where it is, for messages.
    """

    name: str
    values: str
    shape: tuple[int, ...]
    parts: int
    origin: str
    read_keys: Callable[[], Vocabulary] = field(repr=False)
    columns: Mapping[str, Column] = field(repr=False)  # "frequency", "version", ...
    slots: Mapping[str, KeyedTable] = field(default_factory=dict)
    pieces: tuple[str, ...] = ()  # the keys of the tensors that the values are made of
    # Whether an optimizer's state of it, which keeps no ids, has its rows in the same order.
    has_state_by_row: bool = False

    @property
    def keys(self) -> Vocabulary:
        """The ids, and which row of the values is whose; a row may have none.

        Raises CorruptCheckpointError: there are more or fewer than rows, or one is there twice.
        """
        if "_keys" not in self.__dict__:
            self.__dict__["_keys"] = self.read_keys()
        keys: Vocabulary = self.__dict__["_keys"]
        return keys

    @property
    def frequencies(self) -> torch.Tensor | None:
        """How often each id was seen, in the order of `keys.listed`: int64; None: not kept.

        Raises CorruptCheckpointError: a number is negative, or there are more or fewer than rows.
        """
        return self._column("frequency")

    @property
    def versions(self) -> torch.Tensor | None:
        """The step at which each id was last updated, -1 for never: int64; None: not kept.

        Raises CorruptCheckpointError: one is less, or there are more or fewer than rows.
        """
        return self._column("version")

    def _column(self, name: str) -> torch.Tensor | None:
        if name not in self.columns:
            return None
        cached = f"_column_{name}"
        if cached not in self.__dict__:
            column = self.columns[name]().index_select(0, self.keys.entry_rows)
            lowest = int(column.min()) if len(column) else 0
            if lowest < _LOWEST.get(name, lowest):
                raise CorruptCheckpointError(f"{self.origin}: a {name} of it is {lowest:,}.")
            self.__dict__[cached] = column
        found: torch.Tensor = self.__dict__[cached]
        return found

    def kept(
        self,
        min_frequency: int | None = None,
        since_version: int | None = None,
        where: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None = None,
        *,
        may_be_none: bool = False,
    ) -> Vocabulary:
        """The ids that a filter lets through; rows of the others stand for none.

        Args:
            min_frequency: Ids seen at least as often.
            since_version: Ids updated at this step or later.
            where: Gets the columns that the table has, "frequency" and "version", and "key" where
                ids are integers: int64 of one length; returns a bool tensor of that length.
            may_be_none: Whether it is no error that no id is left.

        Raises:
            SettingsError: the table has no such column, or `where` returns something else.
            CallbackError: `where` raised.
            VocabularyError: no id is left.
        """
        keys = self.keys
        chosen = torch.ones(len(keys.listed), dtype=torch.bool)
        if min_frequency is not None:
            chosen &= self._needed("frequency", "min_frequency") >= min_frequency
        if since_version is not None:
            chosen &= self._needed("version", "since_version") >= since_version
        if where is not None:
            chosen &= self._asked(where)
        if bool(chosen.all()):
            return keys
        at = chosen.nonzero().flatten()
        if not len(at) and not may_be_none:
            asked = {"min_frequency": min_frequency, "since_version": since_version, "where": where}
            told = " and ".join(name for name, value in asked.items() if value is not None)
            raise VocabularyError(
                f"Of the {len(keys.listed):,} ids of {self.origin} none is left by {told}."
            )
        return replace(keys, listed=keys.listed.take(at), at=keys.entry_rows[at], first=0)

    def _needed(self, name: str, setting: str) -> torch.Tensor:
        column = self._column(name)
        if column is None:
            there = ", ".join(sorted(self.columns)) or "none"
            raise SettingsError(
                f"{setting} asks for the {name} of ids, which {self.origin} does not keep; its "
                f"columns besides keys and values: {there}."
            )
        return column

    def _asked(self, where: Callable[[Mapping[str, torch.Tensor]], torch.Tensor]) -> torch.Tensor:
        columns = {name: self._needed(name, "where") for name in self.columns}
        ids = self.keys.listed.ids
        if ids is not None:
            columns["key"] = ids
        try:
            answer = where({name: column.clone() for name, column in columns.items()})
        except Exception as error:
            raise CallbackError(
                f"where raised {type(error).__name__} for {self.origin}, of which it was given "
                f"{', '.join(sorted(columns)) or 'no column'}."
            ) from error
        is_mask = isinstance(answer, torch.Tensor) and answer.dtype == torch.bool
        if not is_mask or answer.shape != (len(self.keys.listed),):
            raise SettingsError(
                f"where must return a bool tensor of [{len(self.keys.listed)}] for {self.origin}, "
                f"not {answer.dtype if isinstance(answer, torch.Tensor) else type(answer).__name__}"
                f"{list(answer.shape) if isinstance(answer, torch.Tensor) else ''}."
            )
        return answer

    def __repr__(self) -> str:
        rows = f"{list(self.shape)} of {self.values!r}"
        slots = f", slots {', '.join(self.slots)}" if self.slots else ""
        return f"<KeyedTable {self.name}: {rows}, {self.parts} parts{slots}>"
