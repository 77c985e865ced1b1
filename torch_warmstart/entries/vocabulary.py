"""A vocabulary as a value: which row stands for which entry, and which rows are special.

Where it comes from is not known here. What reads one, and what looks entries up, stands above this
folder and is imported when it is asked for (`_WORKERS`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.entries.entries import Entries
from torch_warmstart.errors import SettingsError, check_kind, path_of
from torch_warmstart.storage import beside
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.entries.usage import Usage

# What rows can be for, besides those that a tokenizer names itself (`pad_token`, `bos_token`, ...).
OOV = "oov"  # what stands for every entry that is not listed, by its hash where there are several
MASK = "mask"  # what stands for no input
PADDING = "padding"  # rows behind the last entry that make up a rounder number

FILE_KIND = "torch_warmstart.vocabulary"
FILE_VERSION = 1
# Columns of what `save` makes for other programs; of counts there are the first and the last.
ENTRY_COLUMN, ROW_COLUMN, COUNT_COLUMN = "entry", "row", "count"
PARQUET_SUFFIX = ".parquet"
TABLE_SUFFIXES = (PARQUET_SUFFIX, ".tsv")
_FINGERPRINT_VERSION = 1
_STRIDE = 1 << 16  # entries at a time

# What a vocabulary offers and cannot do itself is done above this folder: by whom.
_WORKERS = {
    "load": "vocabularies.loading.source",
    "rows_of": "vocabularies.remapping",
    "save_table": "vocabularies.kept_table",
}


def _work(name: str) -> Callable[..., Any]:
    module = importlib.import_module(f"{__name__.partition('.')[0]}.{_WORKERS[name]}")
    work: Callable[..., Any] = getattr(module, name)
    return work


@frozen(eq=False, repr=False)
class Vocabulary:
    """Which row of a table stands for which entry.

    `len()` is the number of rows: those of entries, special ones, gaps and padding. Make one with
    `Vocabulary.load`; everything that takes a vocabulary takes what `load` takes, and a
    `Vocabulary` too.

    Attributes:
        listed: The entries that rows stand for, in the order of their rows.
        num_rows: How many rows there are, with and without an entry.
        at: The row of each listed entry, ascending: int64. None: one after another from `first` on.
        first: The row of the first listed entry, where `at` is None.
        special: What rows are for: "oov" (all that is not listed), "mask" (no input), "padding"
            (what makes up a rounder number), or what a tokenizer calls its tokens, "pad_token".
        oov_hash: Which function chooses among several OOV rows; "": not known.
        is_padded: Whether tables of it are customarily made higher, to a multiple of 8 or more.
        usage: How often and when each listed entry was seen, as `update_vocabulary` keeps it.

    Example:
        >>> vocab = Vocabulary.load(["paris", "rome"])
        >>> vocab.rows(["rome", "oslo"])
        tensor([ 1, -1])
    """

    listed: Entries
    num_rows: int
    at: torch.Tensor | None = None
    first: int = 0
    special: Mapping[str, range] = field(default_factory=dict)
    oov_hash: str = ""
    is_padded: bool = False
    usage: Usage | None = None

    def __post_init__(self) -> None:
        special = {name: rows for name, rows in sorted(self.special.items()) if len(rows)}
        object.__setattr__(self, "special", MappingProxyType(special))
        if self.usage is not None and len(self.usage) != len(self.listed):
            raise SettingsError(
                f"A usage of {len(self.usage):,} entries does not fit {len(self.listed):,} entries."
            )

    @classmethod
    @on_cpu
    def load(
        cls,
        source: Any,
        *,
        column: str | int | None = None,
        key: str | None = None,
        format: str | None = None,
    ) -> Vocabulary:
        """Reads a vocabulary from what people hold one in.

        Args:
            source: A path or URL: text with one entry a line, compressed or not; csv, tsv, Parquet
                or JSON lines with a `column`; `vocab.json`, `tokenizer.json`, the directory of a
                tokenizer, sentencepiece's `.model` and `.vocab`, a tiktoken file, what `save`
                wrote; a `.keras`, `.h5`, SavedModel or checkpoint with the name of the layer or
                table as `key`. Or entries: a sequence of str, bytes or int, an array of numpy's,
                an integer tensor, a column of pandas', polars' or pyarrow's. Or a mapping of entry
                to row. Or an object that has a vocabulary: a lookup layer of Keras's, a tokenizer
                of Hugging Face's, sentencepiece's or tiktoken's.
            column: Which column of a table, by name, or by number from 0.
            key: Which layer or table of a file that may hold several.
            format: What the file is, where its content does not tell: "lines", "csv", "tsv",
                "jsonl", "vocab", "tiktoken".

        Returns:
            The vocabulary, on the CPU. Text is bytes, UTF-8 where it came as str.

        Raises:
            VocabularyError: the source is not there, empty or not what it should be; the message
                says what it is and what to write.
            StorageError: a server or filesystem cannot be reached, or refuses it.
            SettingsError: the source is of no such kind, or a setting is of no use for it.
            MissingDependencyError: a package that reads it is not installed.
        """
        loaded: Vocabulary = _work("load")(source, column=column, key=key, format=format)
        return loaded

    def __len__(self) -> int:
        return self.num_rows

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        return self.listed.origin

    @property
    def entries(self) -> Sequence[bytes | int | None]:
        """What each row stands for: bytes, or int; None where it stands for no entry."""
        return _RowEntries(self)

    @property
    def entry_rows(self) -> torch.Tensor:
        """The row of each listed entry: int64, ascending."""
        if self.at is not None:
            return self.at
        return torch.arange(self.first, self.first + len(self.listed), device=self.listed.device)

    def numbers_at(self, rows: torch.Tensor) -> torch.Tensor:
        """For rows, int64, the numbers of their listed entries; -1 where a row has none."""
        if self.at is None:
            numbers = rows - self.first
            return torch.where((numbers >= 0) & (numbers < len(self.listed)), numbers, -1)
        if not len(self.at):
            return torch.full_like(rows, -1)
        numbers = torch.searchsorted(self.at, rows).clamp(max=len(self.at) - 1)
        return torch.where(self.at[numbers] == rows, numbers, -1)

    @on_cpu
    def rows(self, entries: Any) -> torch.Tensor:
        """The row of each entry.

        Args:
            entries: What `load` takes as entries: a sequence or array of str, bytes or int.

        Returns:
            int64 of `[len(entries)]`; -1 for what is not listed.

        Raises:
            VocabularyError: text is looked up among ids, or ids among text.
        """
        found: torch.Tensor = _work("rows_of")(self, entries)
        return found

    @property
    @on_cpu
    def fingerprint(self) -> str:
        """What is equal for vocabularies of the same rows and special rows, and for no others.

        `1:` and 32 hexadecimal digits; the number changes if it is ever made otherwise.
        """
        digest = hashlib.blake2b(digest_size=16)
        told = {
            "rows": self.num_rows,
            "kind": self.kind,
            "special": {name: [rows.start, rows.stop] for name, rows in self.special.items()},
            "oov_hash": self.oov_hash if len(self.special.get(OOV, ())) > 1 else "",
        }
        digest.update(json.dumps(told, sort_keys=True).encode())
        _take_in(digest, self.entry_rows, self.listed)
        return f"{_FINGERPRINT_VERSION}:{digest.hexdigest()}"

    def fingerprint_at(self, rows: torch.Tensor) -> str:
        """What is equal where the same entries are at some rows, int64, and not otherwise."""
        digest, numbers = hashlib.blake2b(digest_size=16), self.numbers_at(rows)
        has_entry = numbers >= 0
        _take_in(digest, rows[has_entry], self.listed.take(numbers[has_entry]))
        return digest.hexdigest()

    @property
    def kind(self) -> str:
        """What entries are: "text", "int64" or "uint64"."""
        if self.listed.is_text:
            return "text"
        return "uint64" if self.listed.is_unsigned else "int64"

    @on_cpu
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows, special ones too, into one file that `Vocabulary.load` reads.

        It is a safetensors file: `bytes` and `lengths`, or `ids`; `rows`, where there are gaps; and
        `counts`, `last_seen` and `born`, where these are known. To a path that ends in `.parquet`
        or `.tsv` it is a table of entry, row, count, last_seen and born, for other programs too.
        What was there before is replaced, whole or not at all.

        Raises:
            SettingsError: nothing can be written there, or a line cannot hold an entry.
            MissingDependencyError: tables need pyarrow.
        """
        where = path_of("Vocabulary.save: path", path)
        if where.endswith(TABLE_SUFFIXES):
            _work("save_table")(self, where)
            return
        tensors = _tensors_of(self)
        about = {"format": FILE_KIND, "first": self.first, **said_in_files(self)}
        try:
            _write(where, tensors, json.dumps(about))
        except OSError as error:
            why = error.strerror or error
            raise SettingsError(f"{where} cannot be written: {why}.") from error

    def head(self, count: int) -> Vocabulary:
        """The first `count` rows."""
        check_kind("head: count", count, int, "a number of rows")
        if count >= self.num_rows:
            return self
        kept = int((self.entry_rows < count).sum())
        special = {name: range(r.start, min(r.stop, count)) for name, r in self.special.items()}
        return replace(
            self,
            listed=self.listed.slice(0, kept),
            num_rows=count,
            at=None if self.at is None else self.at[:kept],
            special=special,
            usage=self.usage.slice(0, kept) if self.usage is not None else None,
        )

    def padded_to(self, count: int) -> Vocabulary:
        """The same with rows of no entry behind, up to `count`."""
        check_kind("padded_to: count", count, int, "a number of rows")
        if count <= self.num_rows:
            return self
        before = self.special.get(PADDING)
        start = before.start if before and before.stop == self.num_rows else self.num_rows
        special = {**self.special, PADDING: range(start, count)}
        return replace(self, num_rows=count, special=special)

    def to(self, device: torch.device) -> Vocabulary:
        """The same vocabulary on a device."""
        if device == self.listed.device:
            return self
        at = None if self.at is None else self.at.to(device)
        return replace(self, listed=self.listed.to(device), at=at)

    def show(self, index: int) -> str:
        """A listed entry and its place, by its number among the listed ones: `'b' (line 2)`."""
        return self.listed.show(index)

    def __repr__(self) -> str:
        special = "".join(f", {name} {_span(rows)}" for name, rows in self.special.items())
        kind = {"text": "text", "int64": "ids", "uint64": "unsigned ids"}[self.kind]
        return (
            f"<Vocabulary of {self.origin}: {self.num_rows:,} rows, {len(self.listed):,} entries "
            f"({kind}){special}>"
        )


class _RowEntries(Sequence[bytes | int | None]):
    """What rows stand for, one by one; made when they are looked at."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._of = vocabulary
        self._rows = vocabulary.entry_rows

    def __len__(self) -> int:
        return self._of.num_rows

    @overload
    def __getitem__(self, index: int) -> bytes | int | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | int | None]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        number = int(torch.searchsorted(self._rows, row))
        if number == len(self._rows) or int(self._rows[number]) != row:
            return None
        return self._of.listed.entry(number)

    def __iter__(self) -> Iterator[bytes | int | None]:
        row = 0
        for start in range(0, len(self._rows), _STRIDE):
            step = slice(start, start + _STRIDE)
            values = self._of.listed.values(step)
            for at, value in zip(self._rows[step].tolist(), values, strict=True):
                while row < at:
                    yield None
                    row += 1
                yield value
                row += 1
        while row < len(self):
            yield None
            row += 1


def _span(rows: range) -> str:
    return str(rows.start) if len(rows) == 1 else f"{rows.start}-{rows.stop - 1}"


def _raw(tensor: torch.Tensor) -> memoryview:
    return np.ascontiguousarray(tensor.cpu().numpy()).view(np.uint8).data


def _take_in(digest: Any, rows: torch.Tensor, entries: Entries) -> None:
    """Rows, and the entry of each, into a digest."""
    for start in range(0, len(entries), _STRIDE):
        step = slice(start, start + _STRIDE)
        digest.update(_raw(rows[step]))
        if entries.ids is not None:
            digest.update(_raw(entries.ids[step]))
        else:
            data, lengths = entries.packed(step)
            digest.update(_raw(lengths))
            digest.update(_raw(data))


def said_in_files(vocabulary: Vocabulary) -> dict[str, Any]:
    """What a file of a vocabulary says of it, whatever it is, besides entries and their rows."""
    return {
        "version": FILE_VERSION,
        "num_rows": len(vocabulary),
        "special": {name: [rows.start, rows.stop] for name, rows in vocabulary.special.items()},
        "oov_hash": vocabulary.oov_hash,
        "is_padded": vocabulary.is_padded,
        "kind": vocabulary.kind,
    }


def _tensors_of(vocabulary: Vocabulary) -> dict[str, tuple[str, torch.Tensor]]:
    """What a file holds: name to safetensors' word for the dtype, and the tensor."""
    listed = vocabulary.listed
    tensors: dict[str, tuple[str, torch.Tensor]] = {}
    if listed.ids is not None:
        tensors["ids"] = "U64" if listed.is_unsigned else "I64", listed.ids
    else:
        steps = range(0, len(listed), _STRIDE)
        packed = [listed.packed(slice(start, start + _STRIDE)) for start in steps]
        nothing = torch.empty(0, dtype=torch.uint8)
        tensors["bytes"] = "U8", torch.cat([nothing, *(data.cpu() for data, _ in packed)])
        lengths = [torch.empty(0, dtype=torch.int64), *(length.cpu() for _, length in packed)]
        tensors["lengths"] = "I64", torch.cat(lengths)
    if vocabulary.at is not None:
        tensors["rows"] = "I64", vocabulary.at
    if vocabulary.usage is not None:
        tensors["counts"] = "I64", vocabulary.usage.counts
        tensors["last_seen"] = "I32", vocabulary.usage.last_seen
        tensors["born"] = "I32", vocabulary.usage.born
    return tensors


def _write(path: str, tensors: Mapping[str, tuple[str, torch.Tensor]], about: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"vocabulary": about}}
    end = 0
    ordered = sorted(tensors.items(), key=lambda item: -item[1][1].itemsize)  # so all are aligned
    for name, (word, tensor) in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": word, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with beside(path) as written, open(written, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, (_, tensor) in ordered:
            file.write(_raw(tensor))


def vocabulary_of(entries: Entries, **more: Any) -> Vocabulary:
    """A vocabulary whose rows are the entries, in order."""
    return Vocabulary(entries, len(entries), **more)
