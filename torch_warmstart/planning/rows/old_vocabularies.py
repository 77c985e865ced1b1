"""Which old vocabulary is meant, where the settings leave it to the checkpoint."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import VocabularyError, did_you_mean, listed
from torch_warmstart.formats import Checkpoint
from torch_warmstart.settings import FromCheckpoint, VocabInfo
from torch_warmstart.storage import Storage, is_remote
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies import Sidecar, read_vocabulary, sidecar_vocabularies

if TYPE_CHECKING:
    from torch_warmstart.formats import KeyedTable


@frozen(eq=False, slots=False)  # without slots, for the cached properties
class OldVocabularies:
    """What the checkpoint, and what lies beside it, says of old vocabularies; read once."""

    checkpoint: Checkpoint
    storage: Storage
    is_older: bool = False  # only what is back is taken of it, which may be nothing

    def of(
        self,
        info: VocabInfo,
        keys: tuple[str, ...] = (),
        of_parameter: tuple[str, ...] = (),
        *,
        has_ids: bool = True,
    ) -> Any:
        """The old vocabulary that an info means for a variable.

        The ids that a table keeps come first: its rows are theirs, and those of a slot's table are
        of the ids that the slot keeps. Otherwise what is given; and of `FROM_CHECKPOINT` what was
        saved beside the checkpoint for that tensor, or a tokenizer in its directory: which layer or
        lookup table a variable's rows belong to, no size can tell.

        Args:
            info: What the settings say.
            keys: Those of what the variable is made of.
            of_parameter: Of a slot, those of its parameter.
            has_ids: Whether the info is for the axis along which tables keep their ids.

        Raises:
            VocabularyError: there is none, or none of that name, or it is not said which; or one is
                given for a table that keeps its ids, and differs from these.
            SettingsError: ids are to be filtered by a column that is not there.
        """
        table = self.table_of(keys) if has_ids else None
        if table is not None:
            return self._of_table(info, table, is_slot=bool(of_parameter))
        table = self.table_of(of_parameter) if has_ids else None
        if table is not None and table.has_state_by_row:
            return self._of_table(info, table, is_slot=False)
        if has_ids:
            self.check_no_part(keys)
        source = info.old_vocab
        if info.has_filter:
            raise VocabularyError(
                "min_frequency, since_version and where are for tables that keep their ids, which "
                f"{' and '.join(map(repr, keys))} of {self.checkpoint.url} is not. "
                f"{self._listed_tables()}"
            )
        if not isinstance(source, FromCheckpoint):
            return source
        if source.name is not None:
            return self._named(source.name)
        beside = [key for key in (*keys, *of_parameter) if key in self.sidecar]
        return self.saved(beside[0]) if beside else self._unnamed()

    def table_of(self, keys: tuple[str, ...]) -> KeyedTable | None:
        """The table whose values a variable is made of."""
        return self._by_values.get(keys[0]) if len(keys) == 1 else None

    def check_no_part(self, keys: tuple[str, ...]) -> None:
        """Raises VocabularyError: a variable is made of one of a table's parts, without its ids."""
        whole = next((self._of_parts[key] for key in keys if key in self._of_parts), None)
        if whole is not None:
            raise VocabularyError(
                f"{keys[0]!r} is one of {whole.parts} parts of a table that keeps its ids: name "
                f"the table, {whole.values!r}."
            )

    @functools.cached_property
    def _of_parts(self) -> Mapping[str, KeyedTable]:
        """The tables by the keys of their parts, where they have several."""
        several = (table for table in self._with_slots if len(table.pieces) > 1)
        return {key: table for table in several for key in table.pieces}

    def _of_table(self, info: VocabInfo, table: KeyedTable, *, is_slot: bool) -> Vocabulary:
        source = info.old_vocab
        is_given = not isinstance(source, FromCheckpoint)
        if is_slot:
            return table.keys
        if is_given:
            given = read_vocabulary(source, storage=self.storage)
            if given.fingerprint != table.keys.fingerprint:
                raise VocabularyError(
                    f"{table.origin} keeps {len(table.keys.listed):,} ids with its rows, and "
                    f"{self._word}, {given.origin}, says others or has them in another order. "
                    f"{self.instead}."
                )
        elif source.name is not None and source.name not in (table.name, table.values):
            return self._named(source.name)
        return self._kept(info, table)

    def _kept(self, info: VocabInfo, table: KeyedTable) -> Vocabulary:
        """The ids that its filters leave; `where` is asked once."""
        asked = (table.values, info.min_frequency, info.since_version, id(info.where))
        if asked not in self._filtered:
            found = table.kept(
                info.min_frequency, info.since_version, info.where, may_be_none=self.is_older
            )
            self._filtered[asked] = (found, info.where)  # held, so that no other has its identity
        return self._filtered[asked][0]

    @functools.cached_property
    def _filtered(self) -> dict[Hashable, tuple[Vocabulary, Any]]:
        return {}

    @functools.cached_property
    def sidecar(self) -> Sidecar:
        """The vocabularies that were saved beside the checkpoint."""
        return sidecar_vocabularies(
            self.checkpoint.seen_from_here(self.checkpoint.url), self.storage
        )

    def saved(self, key: str) -> Vocabulary:
        """The vocabulary that was saved beside the checkpoint for a tensor of it.

        Raises VocabularyError: it cannot be read, or was saved for other values of the tensor.
        """
        if key not in self._saved:
            self._saved[key] = self.sidecar.of_tensor(key, self.checkpoint)
        return self._saved[key]

    @functools.cached_property
    def _saved(self) -> dict[str, Vocabulary]:
        return {}

    @functools.cached_property
    def _by_values(self) -> Mapping[str, KeyedTable]:
        tables = self._with_slots
        whole = {table.pieces[0]: table for table in tables if len(table.pieces) == 1}
        return {**whole, **{table.values: table for table in tables}}

    @functools.cached_property
    def _with_slots(self) -> list[KeyedTable]:
        tables = list(self.checkpoint.tables().values())
        return tables + [slot for table in tables for slot in table.slots.values()]

    def _named(self, name: str) -> Vocabulary:
        if name in self.sidecar:
            return self.saved(name)
        tables = {table.name: table for table in reversed(self._with_slots)}
        if name in tables:
            return tables[name].keys
        found = self.checkpoint.vocabularies()
        if name in found:
            return found[name]
        names = [*found, *tables, *self.sidecar]
        there = _listed(names) if names else "no vocabulary at all"
        raise VocabularyError(
            f"{self.checkpoint.url} holds no vocabulary {name!r}, but {there}."
            f"{did_you_mean(name, names)}{'' if names else ' ' + self._advice()}"
        )

    def _unnamed(self) -> Vocabulary:
        url, folder = self.checkpoint.url, self.checkpoint.seen_from_here(self.checkpoint.directory)
        if folder:
            from torch_warmstart.vocabularies import is_tokenizer_directory

            if is_tokenizer_directory(folder, self.storage):
                return read_vocabulary(folder, storage=self.storage)
        names = [*self.checkpoint.vocabularies(), *self.checkpoint.tables(), *self.sidecar]
        if names:
            raise VocabularyError(
                f"{url} holds {_listed(names)}, and does not say which one is for this variable. "
                f"Name it: {self._given(f'FROM_CHECKPOINT[{names[0]!r}]')}."
            )
        raise VocabularyError(
            f"{self._word} is not given, and {url} holds no vocabulary. "
            f"{self._beside() or self._advice()}"
        )

    @property
    def instead(self) -> str:
        """What to do where what is given contradicts what the checkpoint says."""
        return "Name FROM_CHECKPOINT in fallback" if self.is_older else "Leave old_vocab out"

    @property
    def _word(self) -> str:
        """What the setting is called that gives it."""
        return "the vocabulary of the fallback" if self.is_older else "old_vocab"

    def _given(self, value: str) -> str:
        """How it is given."""
        url = "..." if self.checkpoint.is_callers else repr(self.checkpoint.url)
        return f"fallback=[({url}, {value})]" if self.is_older else f"old_vocab={value}"

    def _advice(self) -> str:
        if self.is_older:
            return f"Say which it had: {self._given('vocabulary')}."
        return "Give it: old_vocab= takes what new_vocab takes."

    def _beside(self) -> str:
        """Where a file is all that was named, and a tokenizer lies beside it."""
        url = self.checkpoint.seen_from_here(self.checkpoint.url)
        if self.checkpoint.is_callers or is_remote(url) or not os.path.isfile(url):
            return ""
        from torch_warmstart.vocabularies import is_tokenizer_directory

        folder = os.path.dirname(url) or "."
        if not is_tokenizer_directory(folder, self.storage):
            return ""
        return (
            "Beside it lies a tokenizer. If that is its own, say so: "
            f"{self._given(repr(folder))}; or name the directory as the checkpoint: {folder!r}."
        )

    def _listed_tables(self) -> str:
        tables = self.checkpoint.tables()
        return f"Tables are {listed(map(repr, tables))}." if tables else ""


def _listed(names: list[str]) -> str:
    of = "y" if len(names) == 1 else "ies of"
    return f"the vocabular{of} {listed(map(repr, names))}"
