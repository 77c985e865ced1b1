"""Who makes which new row: initialisers of `tws.init` asked while planning, without the old values.

How tables from outside are read is decided here, for them (`Elsewhere`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from torch_warmstart.dtypes import NO_PLAIN_TENSOR, lies_in_memory, masked_in, summed_in
from torch_warmstart.entries import OOV, Entries, Vocabulary
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    Finding,
    SettingsError,
    plural,
)
from torch_warmstart.formats import Checkpoint, open_checkpoint
from torch_warmstart.layouts import is_untransposed_linear, output_axis
from torch_warmstart.model import TABLES, Variable, what_it_is
from torch_warmstart.new_rows import (
    Mixed,
    Mixtures,
    NewRows,
    OldRows,
    PaddingRows,
    Role,
    Table,
    ask,
    equal_rows,
    singles_of,
    unanswered_rows,
)
from torch_warmstart.settings import Initializer
from torch_warmstart.storage import Storage
from torch_warmstart.vocabularies import (
    Remapping,
    Vocabularies,
    find_entries,
    read_entries,
    read_vocabulary,
)

_CPU = torch.device("cpu")
_WIDEST = 8  # bytes of a number
_PAIR = "(vocabulary, tensor or array) or (vocabulary, (url, key))"


class Initialising:
    """The new rows of one plan: what is read for one variable serves the next."""

    def __init__(self, storage: Storage) -> None:
        self._elsewhere = Elsewhere(storage)
        self._mixtures = Mixtures()
        # With the vocabularies, which keep their ids: what is cut once is one for all tables.
        self._old: dict[tuple[int, int], tuple[Vocabularies, Vocabulary]] = {}

    def plan(
        self,
        variable: Variable,
        initializer: Initializer,
        generator: torch.Generator | None,
        *,
        vocabularies: Vocabularies | None,
        remapping: Remapping,
        axis: int,
        old_size: int,
        shape: tuple[int, ...] | None = None,
        padding: tuple[int, ...] = (),
    ) -> Mixed:
        """Who answers for a variable's new rows; raises SettingsError if nobody could.

        Args:
            variable: Whose rows they are.
            initializer: What makes them.
            generator: What random rows are drawn from.
            vocabularies: What rows stand for, on the CPU; None where they go by position.
            remapping: Which rows are new.
            axis: Along which they are.
            old_size: How many rows the old tensor has.
            shape: What of the variable has old values along all other axes; None: all of it.
            padding: Those of the new rows that are never trained, and begin as zeros.
        """
        _check_floating(variable)
        size = min(remapping.num_old, old_size)
        new = None if vocabularies is None else vocabularies.new
        old = None if vocabularies is None else self._used(vocabularies, size)
        rows = remapping.rows.cpu()
        at = (rows < 0).nonzero().flatten()
        asked = NewRows(
            name=variable.name,
            role=role_of(variable, axis),
            axis=axis,
            shape=variable.shape if shape is None else shape,
            dtype=variable.tensor.dtype,
            device=variable.device,
            rows=at,
            ordinals=torch.arange(len(at)),
            remapping=rows,
            vocabulary=new,
            old=OldRows(size, old_size, old, self._elsewhere, variable.name),
        )
        singles = singles_of(initializer)
        if padding:
            singles = (*singles_of(PaddingRows(padding)), *singles)
        return Mixed(ask(singles, asked, self._mixtures), generator)

    def _used(self, vocabularies: Vocabularies, size: int) -> Vocabulary:
        """The old vocabulary as far as there are rows.

        Of OOV rows that are not all there nobody knows which entry had which.
        """
        key = id(vocabularies), size
        if key not in self._old:
            whole = vocabularies.old
            used = whole.head(size)
            if len(used.special.get(OOV, ())) != len(whole.special.get(OOV, ())):
                others = {name: rows for name, rows in used.special.items() if name != OOV}
                used = replace(used, special=others)
            self._old[key] = vocabularies, used
        return self._old[key][1]


def _check_floating(variable: Variable) -> None:
    if variable.slot is not None:
        raise SettingsError(
            f"{variable.name} is an optimizer's slot, whose new rows begin as the optimizer begins "
            "them; those of tws.init are for parameters."
        )
    if not variable.tensor.dtype.is_floating_point:
        raise SettingsError(
            f"{variable.name} is {variable.tensor.dtype}, and new rows are mixed of old ones only "
            "where rows are floating numbers."
        )


def role_of(variable: Variable, axis: int) -> Role:
    """What a table does in its model. One that is tied to a head is an input."""
    if len(variable.shape) == 1:
        return "bias"
    modules = [what_it_is(owner.module) for owner in variable.owners]
    if any(isinstance(module, TABLES) for module in modules):
        return "input"
    linear = [m for m in modules if isinstance(m, nn.Linear) or is_untransposed_linear(m)]
    if linear:
        return "output" if axis == output_axis(linear[0]) else "input"
    return "other"


# -- what is to be said ----------------------------------------------------------------------------


def notes_on_new_rows(name: str, mixed: Mixed) -> list[Finding]:
    """Rows that nobody answers for, and rows that begin equal."""
    notes = []
    count = mixed.num_unanswered
    if count:
        notes.append(unanswered_rows(name, count))
    equal = {part.label: part.num_equal for part in mixed.answers.parts if part.num_equal}
    if equal:
        notes.append(equal_rows(name, equal))
    return notes


# -- vocabularies and tables from outside ----------------------------------------------------------


class Elsewhere:
    """Tables and entries as users hold them; a table, and its vocabulary, is read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[Hashable, tuple[Any, Any]] = {}  # with the source, which keeps its id

    def entries(self, source: Any) -> Entries:
        """A sequence of entries."""
        return read_entries(source, _CPU, self._storage)

    def find(self, entries: Entries, known: Vocabulary) -> torch.Tensor:
        """For each entry its row in `known`, or -1."""
        return find_entries(entries.to(_CPU), known.to(_CPU))

    def table(self, source: Any) -> Table:
        """A table whose rows have entries."""
        table: Table = self._once("table", source, self._open_table)
        return table

    def _once(self, kind: str, source: Any, read: Callable[[Any], Any]) -> Any:
        key = (kind, source if isinstance(source, str) else id(source))
        if key not in self._known:
            self._known[key] = (source, read(source))
        return self._known[key][1]

    def _read_vocabulary(self, source: Any) -> Vocabulary:
        return read_vocabulary(source, _CPU, self._storage)

    def _open_table(self, source: Any) -> Table:
        if isinstance(source, str | os.PathLike):
            return self._open_vectors(os.fspath(source))
        if not (isinstance(source, tuple | list) and len(source) == 2):
            how = " Write (list(vectors), numpy.stack(list(vectors.values())))."
            raise SettingsError(
                f"A table from outside is a file of vectors, or {_PAIR}; not a "
                f"{type(source).__name__}.{how if isinstance(source, Mapping) else ''}"
            )
        vocabulary: Vocabulary = self._once("vocabulary", source[0], self._read_vocabulary)
        values = source[1]
        if isinstance(values, torch.Tensor):
            if not lies_in_memory(values):
                raise SettingsError(f"A table from outside was given as {NO_PLAIN_TENSOR}")
            return _Table(vocabulary, _Given(values.detach()))
        if isinstance(values, np.ndarray):
            return _Table(vocabulary, _Given(_tensor_of(values)))
        if not (isinstance(values, tuple | list) and len(values) == 2):
            raise SettingsError(
                f"A table from outside is {_PAIR}; its second part is a {type(values).__name__}."
            )
        return _Table(
            vocabulary, _Saved(open_checkpoint(values[0], storage=self._storage), values[1])
        )

    def _open_vectors(self, url: str) -> Table:
        """A file that names its rows."""
        try:
            checkpoint = open_checkpoint(url, storage=self._storage)
        except (CheckpointNotFoundError, CorruptCheckpointError) as error:
            why = str(error).split("\n", 1)[0].rstrip(":")
            raise SettingsError(
                f"{url} is no file of vectors that can be read (lines of a token and its numbers, "
                f"with single spaces between them; word2vec's binary form): {why}"
            ) from error
        entries = getattr(checkpoint, "vocabulary", None)
        if entries is None:
            raise SettingsError(
                f"{checkpoint.url} is a {checkpoint.format}, whose rows have no entries by "
                f"themselves: give {_PAIR}."
            )
        return _Table(self._read_vocabulary(entries), _Saved(checkpoint, next(iter(checkpoint))))


def _tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """An array of floating numbers, in any order of bytes."""
    missing = masked_in(array)
    if missing:
        raise SettingsError(
            f"The array of a table from outside is masked, and {missing:,} of {array.size:,} "
            "numbers are missing: leave their rows out, with their entries."
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > _WIDEST:
        raise SettingsError(
            f"The array of a table from outside is {array.dtype}: it is a matrix of floating "
            "numbers, float16 to float64."
        )
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


class _Given:
    """A tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.name, self.shape, self._tensor = "the tensor", tuple(tensor.shape), tensor
        self.dtype: torch.dtype | None = tensor.dtype

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        return self._tensor.index_select(0, rows.to(self._tensor.device))


class _Saved:
    """A tensor of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, key: str) -> None:
        spec = checkpoint.spec(key)
        self.name, self.shape = f"{spec.key!r} of {checkpoint.url}", spec.shape
        self.dtype = spec.dtype
        self._checkpoint, self._key = checkpoint, key

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        tensor = self._checkpoint.get_tensor(self._key, rows)
        assert isinstance(tensor, torch.Tensor)
        return tensor


class _Table:
    """A matrix whose rows have entries."""

    def __init__(self, vocabulary: Vocabulary, values: _Given | _Saved) -> None:
        dtype = values.dtype
        is_matrix = len(values.shape) == 2 and values.shape[1] > 0
        if not is_matrix or dtype is None or not dtype.is_floating_point:
            raise SettingsError(
                f"{values.name} has shape {list(values.shape)}; a table of vectors is a matrix of "
                "floating numbers."
            )
        if len(vocabulary) > values.shape[0]:
            raise SettingsError(
                f"{vocabulary.origin} has {plural(len(vocabulary), 'row')}, but {values.name} "
                f"only {values.shape[0]:,}: they do not belong together."
            )
        self.vocabulary, self.width, self._values = vocabulary, values.shape[1], values
        self.dtype: torch.dtype = summed_in(dtype)

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        return self._values.read(rows).to(_CPU, self.dtype)
