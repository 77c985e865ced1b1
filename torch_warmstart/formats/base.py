"""What every checkpoint format offers to the rest of the library, whatever its bytes look like."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from torch_warmstart.computing import Box, on_cpu
from torch_warmstart.display import Shown
from torch_warmstart.dtypes import NO_PLAIN_TENSOR, aligned, as_bits, dtype_name, lies_in_memory
from torch_warmstart.errors import (
    CorruptCheckpointError,
    MissingTensorError,
    SettingsError,
    UnsupportedError,
    check_kind,
    did_you_mean,
)
from torch_warmstart.storage import Guard, here, is_remote
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.display import Sheet
    from torch_warmstart.entries import Vocabulary
    from torch_warmstart.formats.keyed import KeyedTable
    from torch_warmstart.formats.nested import Averages
    from torch_warmstart.formats.saved_optimizers import SavedOptimizer

# Whose layouts and names the tensors follow.
# "tensorflow_or_flax": the names do not tell which of the two.
Family = Literal["tensorflow", "flax", "tensorflow_or_flax", "torch", "mlx", "paddle"]
# How much a name says; those that say more come first.
#   own      what a tensor is called
#   short    the same without the models that it is in, which have names of their own
#   storage  only where it lies in the file: by class and number, or by number
NameKind = Literal["own", "short", "storage"]
Rows = slice | Sequence[int] | torch.Tensor  # of a tensor, as a caller names them
Block = tuple[int, torch.Tensor]  # the number of its first row, and the rows

# In object-based checkpoints: the key of the graph, what stands behind an object's path, and how
# keys of variables and of tables end.
OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
ATTRIBUTES = "/.ATTRIBUTES/"
VARIABLE_VALUE = "VARIABLE_VALUE"
ATTRIBUTE_SUFFIX = f"{ATTRIBUTES}{VARIABLE_VALUE}"
TABLE_SUFFIX = f"{ATTRIBUTES}table"


class MalformedError(Exception):
    """Bytes that do not follow their format: a short fact, to which others add the file.

    Never leaves `formats`.
    """


@frozen
class TensorSpec:
    """A tensor of a checkpoint without its data."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None  # what get_tensor returns; None: strings, or not for torch
    stored_dtype: str  # the format's own word: "float", "qint8", "string", ...
    storage: Hashable = None  # equal for keys that share their bytes; None: shared with no other
    unreadable: str = ""  # why it cannot be read, to follow its key; "": that is its dtype

    @property
    def dtype_name(self) -> str:
        """Its dtype for people: torch's name, or where torch has none the format's own word."""
        return self.stored_dtype if self.dtype is None else dtype_name(self.dtype)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in memory; 0 for strings, whose size only their bytes tell."""
        return self.numel * self.dtype.itemsize if self.dtype is not None else 0


@frozen
class TensorLocation:
    """Where a tensor's bytes are, for people who look for them."""

    files: tuple[str, ...]  # names, not paths
    num_slices: int = 0  # 0: in one piece


@frozen
class GraphOptimizer:
    """An optimizer in an object-based checkpoint, as its edges name things there."""

    slots: Mapping[str, Mapping[str, str]]  # key of a variable: name of a slot: key of the slot
    attributes: Mapping[str, str]  # "iter", "_iterations", "beta1_power", ...: key; "": a list
    full_names: Mapping[str, str]  # of both, by key


@frozen
class SavedLayer:
    """What a file says of a layer, beyond the names of its tensors."""

    name: str  # where it is, for people
    kind: str = ""  # its class in snake case; "": not known
    options: Mapping[str, Any] | None = None  # its configuration; None: the file has none of it
    keys: tuple[str, ...] = ()  # of its tensors, and of those of the layers within it
    around: SavedLayer | None = None  # the layer that it is in
    backend: str = ""  # what Keras ran on, where the file says so


_Made = TypeVar("_Made", bound="Checkpoint")


class _Readers:
    """Who reads from a checkpoint; it is closed when nobody does."""

    def __init__(self) -> None:
        self._guard, self._count = Guard(), 0
        self._close: Callable[[], None] | None = None  # what is left to do

    def __enter__(self) -> None:
        with self._guard:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._count -= 1
        self._close_if_free()

    def close(self, close: Callable[[], None]) -> None:
        """Calls it now, or when the last who reads is done."""
        with self._guard:
            self._close = close
        self._close_if_free()

    def _close_if_free(self) -> None:
        with self._guard:  # nobody begins to read meanwhile
            if self._close is not None and not self._count:
                close, self._close = self._close, None
                close()


class Checkpoint(Mapping[str, TensorSpec], Shown, ABC):
    """An open checkpoint: a mapping of key to `TensorSpec`, whose tensors are read on demand.

    A context manager; tensors read from it stay valid after it is closed. Threads may share it.
    """

    url: str  # where it is, for messages
    directory: str = ""  # that was named, where weights are one of the files that belong together
    format: str  # what it is, for messages: "TensorFlow V2 checkpoint", ...
    family: Family
    is_callers: bool = False  # whether its tensors are those that the caller has in memory
    has_optimizers_beside: bool = False  # whether their states are files of their own
    has_checksums: bool = False  # whether `verify` reads whole tensors to check them
    _readers: _Readers
    _folder: str  # where the process was when it was opened

    def __new__(cls: type[_Made], *_: Any, **__: Any) -> _Made:
        made = super().__new__(cls)
        made._readers = _Readers()
        made._folder = here()
        return made

    def spec(self, key: str) -> TensorSpec:
        """The spec of a tensor, by its key or by another name that `keys_of` knows.

        Raises MissingTensorError, with near names, if there is none, and SettingsError if the name
        is that of several.
        """
        check_kind("A tensor's key", key, str, "a str")
        spec = self._find(key)
        return self._find_named(key) if spec is None else spec

    @on_cpu
    def get_tensor(self, key: str, rows: Rows | None = None) -> Any:
        """Reads a tensor, or only some of its rows.

        Args:
            key: The tensor's key, or another name of it.
            rows: Which, along dimension 0: a slice, a sequence of indices or an int64 vector, in
                any order, repeats allowed. Only these rows are read. They are not checked against a
                checksum, which covers whole tensors: call `verify(key)` for that.

        Returns:
            A torch.Tensor on the CPU of `spec(key).shape` (with `rows`, the first size is
            `len(rows)`). To change it does not change the checkpoint, unless that is what the
            caller has in memory. A string tensor comes as a flat list of `bytes` in C order, since
            torch has no strings; `spec(key).shape` tells its shape.

        Raises:
            MissingTensorError: there is no such tensor.
            CorruptCheckpointError: its bytes fail their checksum, or are not there.
            UnsupportedError: torch has no such dtype.
            SettingsError: `rows` are no whole numbers within the tensor, or the name is that of
                several tensors.

        Example:
            >>> ckpt = tws.load_checkpoint({"w": torch.arange(8.0).reshape(4, 2)})
            >>> ckpt.get_tensor("w", rows=[3, 0]).tolist()
            [[6.0, 7.0], [0.0, 1.0]]
        """
        tensor = self.view_tensor(key, _row_numbers(self.spec(key), rows))
        is_lent = rows is None and isinstance(tensor, torch.Tensor) and not self.is_callers
        return tensor.clone() if is_lent else tensor  # each time: the caller may change it

    def view_tensor(self, key: str, rows: torch.Tensor | None = None) -> Any:
        """As `get_tensor`, but what is only looked at: on top of the file where possible."""
        spec = self.spec(key)
        if rows is not None:
            _check_rows(spec, rows)
        self._check_readable(spec)
        with self._readers:
            return self._read(spec, rows)

    def row_blocks(self, key: str, rows: torch.Tensor) -> Sequence[Block]:
        """Reads a tensor as it lies in the file: on top of it where possible, without copies.

        Args:
            key: The tensor's key, or another name of it.
            rows: int64 indices along dimension 0, in any order, on any device, negative ones for
                none: what will be looked at. Of a remote file nothing else is fetched if the format
                allows that; the other rows then come as zeros. Rows are not checked against a
                checksum; call `verify` for that.

        Returns:
            Blocks of consecutive rows, each with the number of its first row: more than one if the
            tensor is kept in slices. They are contiguous, but where a format aligns nothing they
            may begin at any byte.

        Raises:
            As `get_tensor`.
        """
        spec = self.spec(key)
        self._check_readable(spec)
        with self._readers:
            if not spec.shape or not spec.numel:
                return [(0, self._read(spec, None))]
            return self._row_blocks(spec, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:  # noqa: ARG002
        return [(0, self._read(spec, None))]

    def box_blocks(self, key: str, rows: torch.Tensor, box: Box) -> Sequence[Block]:
        """As `row_blocks`, but of the rows only what lies in a box that has all of dimension 0."""
        spec = self.spec(key)
        self._check_readable(spec)
        with self._readers:
            return self._box_blocks(spec, rows, box)

    def _box_blocks(self, spec: TensorSpec, rows: torch.Tensor, box: Box) -> Sequence[Block]:
        blocks = self.row_blocks(spec.key, rows)
        return [(first, box.spread(0, len(block)).of(block)) for first, block in blocks]

    def pieces(self, key: str) -> Sequence[tuple[Box, torch.Tensor]] | None:  # noqa: ARG002
        """What this process has in memory of a tensor that others have parts of; else None."""
        return None

    def is_in_parts(self, key: str) -> bool:
        """Whether this process has only a part of a tensor, in memory."""
        return self.pieces(key) is not None

    def view_box(self, key: str, box: Box) -> torch.Tensor:
        """Reads a part of a tensor: on top of the file where that holds it in one piece.

        Of a remote file the rows are fetched that the part has elements of, and no others if the
        format allows that. Nothing is checked against a checksum; call `verify` for that.

        Raises as `get_tensor`.
        """
        spec = self.spec(key)
        self._check_readable(spec)
        with self._readers:
            if not spec.shape or not box.numel:
                whole: torch.Tensor = self._read(spec, None)
                return box.of(whole)
            return self._view_box(spec, box)

    def _view_box(self, spec: TensorSpec, box: Box) -> torch.Tensor:
        rows = torch.arange(*box.along(0).indices(spec.shape[0]))
        found = []
        for first, block in sorted(self._row_blocks(spec, rows), key=lambda block: block[0]):
            here = Box((first, *box.offsets[1:]), (len(block), *box.sizes[1:]))
            common = box.common(here)
            if common is not None:
                inner = common.within(Box((first, *(0 for _ in box.sizes[1:])), here.sizes))
                found.append(inner.of(block))
        if len(found) == 1:
            return aligned(found[0])
        return torch.cat([as_bits(aligned(piece)) for piece in found]).view(found[0].dtype)

    def prefetch(self, keys: Sequence[str]) -> None:
        """Fetches tensors together that will be read one by one; local files need no such thing."""

    def verify(self, key: str) -> None:
        """Checks a whole tensor against its checksum, if the format has one.

        Raises CorruptCheckpointError; reading rows is safe afterwards.
        """
        self.spec(key)

    def location(self, key: str) -> TensorLocation:
        """The files that hold a tensor, and into how many slices it is cut."""
        self.spec(key)
        return TensorLocation((self.url.rsplit("/", 1)[-1],))

    def local_files(self, keys: Iterable[str]) -> list[str]:
        """Paths of the files that hold tensors; none in memory or behind a URL."""
        url = self.seen_from_here(self.url)
        folder = url if os.path.isdir(url) else os.path.dirname(url)
        names = dict.fromkeys(name for key in keys for name in self.location(key).files)
        paths = [os.path.join(folder, name) for name in names]
        return [path for path in paths if os.path.isfile(path)]

    def seen_from_here(self, url: str) -> str:
        """The same file or folder, if the process has gone elsewhere since this was opened."""
        is_path = url and not (self.is_callers or is_remote(url))
        return os.path.join(self._folder, url) if is_path and self._folder != here() else url

    def keys_in_memory(self, keys: Iterable[str]) -> list[str]:
        """Those of tensors that the caller has in memory."""
        return [*keys] if self.is_callers else []

    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        """Other names of tensors: name to keys; more than one key if the name is ambiguous."""
        return {}

    def keys_of(self, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """The keys of the tensors that a name stands for which is no key itself.

        More than one if it is ambiguous; keys of tensors with the same bytes count as one.
        """
        return ()

    def keys_like(self, pattern: str, *, in_a_scope: bool = False) -> tuple[str, ...]:  # noqa: ARG002
        """The keys of the tensors that paths lead to which no key or full name shows.

        Args:
            pattern: A path; in the name of an edge, `*` is any run of characters.
            in_a_scope: Whether the path begins at an object that is the root's, not at the root.
        """
        return ()

    def layer_of(self, key: str) -> SavedLayer | None:  # noqa: ARG002
        """The innermost layer that a tensor is in, where the file has layers; None if not."""
        return None

    def scopes(self) -> tuple[str, ...]:
        """The names of the edges that an object graph's root has; what `in_a_scope` leaves out."""
        return ()

    def name_kind(self, name: str) -> NameKind:  # noqa: ARG002
        """How much a key, another name or a path says of what a tensor is called."""
        return "own"

    def object_paths(self, key: str) -> tuple[str, ...]:  # noqa: ARG002
        """Where in the saved program a tensor is, best first; () where the key says all."""
        return ()

    def graph_optimizers(self) -> Sequence[GraphOptimizer]:
        """The optimizers that an object-based checkpoint ties to their variables."""
        return ()

    def metadata(self) -> Any:
        """What torch keeps in `state_dict()._metadata`, or None."""
        return None

    entry: str = ""  # the path of keys to what was taken, of a file with several entries

    def averages(self) -> Sequence[Averages]:
        """Averages of the weights that are kept beside these, in entries of their own."""
        return ()

    # Files of other models in the folder that was opened, as Accelerate writes them.
    models_beside: Sequence[str] = ()

    def entries_beside(self) -> str:
        """Other entries of the file that hold tensors, with their first keys, for messages."""
        return ""

    def entries_alike(self, keys: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        """The entry that was taken and others with tensors of these names, of the same shapes."""
        return ()

    def extra_states(self) -> tuple[str, ...]:
        """Keys of what modules keep beside their tensors (`get_extra_state`), if that is none."""
        return ()

    def optimizer_states(self) -> tuple[SavedOptimizer, ...]:
        """What optimizers kept, where a torch checkpoint holds that too.

        The keys of their slots are taken by `spec` and `get_tensor`. They are not among the
        checkpoint's own, unless the optimizer's state lies flattened between the weights.
        """
        from torch_warmstart.formats import saved_optimizers

        return saved_optimizers.in_keys(self) if self.family == "torch" else ()

    @on_cpu
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """The vocabularies that the checkpoint itself holds, by the name of their layer or table.

        Raises CorruptCheckpointError: one of them is not what its form says.
        """
        return {}

    def besides(self) -> Mapping[str, str]:
        """What the file holds that is no tensor of it: where, and what it is in a few words."""
        return dict.fromkeys(self.extra_states(), "what a module keeps beside its tensors")

    def to_dict(self) -> dict[str, Any]:
        """What it holds as plain values that `json.dumps` takes, with `version` and `totals`."""
        from torch_warmstart.formats.listing import list_tensors

        return list_tensors(self).to_dict()

    def _sheet(self) -> Sheet:
        from torch_warmstart.formats.listing import list_tensors

        return list_tensors(self)._sheet()

    @on_cpu
    def tables(self) -> Mapping[str, KeyedTable]:
        """The tables that keep their ids, by name: those of embedding variables and the like.

        Raises CorruptCheckpointError: a part of one is missing.
        """
        from torch_warmstart.formats.keyed import torchrec_tables

        if "_tables_found" not in self.__dict__:
            found = torchrec_tables(self) if self.family == "torch" else {}
            self.__dict__["_tables_found"] = found
        tables: Mapping[str, KeyedTable] = self.__dict__["_tables_found"]
        return tables

    def close(self) -> None:
        """Lets go of the files, as soon as no other thread reads from them.

        They are opened again if the checkpoint is read after that.
        """
        self._readers.close(self._close)

    def _close(self) -> None:
        """Lets go of the files; nobody reads from them."""

    def _find_named(self, name: str) -> TensorSpec:
        keys = self.keys_of(name)
        if not keys:
            raise self._missing(name)
        check_one_key(self.url, name, keys)
        return self.spec(keys[0])

    def _missing(self, key: str) -> MissingTensorError:
        return MissingTensorError(
            f"{self.url} has no tensor {key!r}.{did_you_mean(key, [*self, *self.full_names()])} "
            "list_variables() shows all."
        )

    def _check_readable(self, spec: TensorSpec) -> None:
        if spec.unreadable:
            raise UnsupportedError(f"{self.url}: tensor {spec.key!r} {spec.unreadable}.")
        if spec.dtype is None and spec.stored_dtype != "string":
            raise UnsupportedError(
                f"{self.url}: tensor {spec.key!r} is of type {spec.stored_dtype}, "
                "which torch cannot hold."
            )

    @abstractmethod
    def _find(self, key: str) -> TensorSpec | None: ...

    @abstractmethod
    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any: ...

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, key: str) -> TensorSpec:
        return self.spec(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The spec of a tensor, or `default`; unlike `spec`, a miss costs no search."""
        spec = self._find(key) if isinstance(key, str) else None
        return default if spec is None else spec

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _damaged(self, key: str, fact: object) -> CorruptCheckpointError:
        """The error for a tensor whose bytes are not what they should be."""
        return CorruptCheckpointError(f"{self.url}: tensor {key!r} is damaged: {fact}.")

    def __repr__(self) -> str:
        return f"<{self.format} {self.url!r}, {len(self)} tensors>"


def _row_numbers(spec: TensorSpec, rows: Rows | None) -> torch.Tensor | None:
    """Rows as a vector; `_check_rows` says what is wrong with one."""
    if rows is None or isinstance(rows, torch.Tensor):
        return rows
    if isinstance(rows, slice):
        chosen = _sliced(spec, rows)
        return torch.arange(len(chosen)) * chosen.step + chosen.start
    try:
        found = torch.tensor(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_rows(rows) from error
    return found if found.numel() else found.to(torch.int64)


def _sliced(spec: TensorSpec, rows: slice) -> range:
    try:
        return range(spec.shape[0] if spec.shape else 0)[rows]
    except (TypeError, ValueError) as error:  # of no whole numbers, or a step of 0
        raise _no_rows(rows) from error


def _no_rows(rows: object) -> SettingsError:
    return SettingsError(
        f"rows must be a slice, whole numbers or a vector of int64, not {rows!r:.80}"
    )


def _check_rows(spec: TensorSpec, rows: torch.Tensor) -> None:
    if not spec.shape:
        raise SettingsError(f"tensor {spec.key!r} is a scalar and has no rows")
    if not lies_in_memory(rows):
        raise SettingsError(f"rows must be a vector of int64, not {NO_PLAIN_TENSOR}")
    if rows.dtype != torch.int64 or rows.ndim != 1:
        raise SettingsError(
            f"rows must be a vector of int64, not {rows.dtype} of shape {tuple(rows.shape)}"
        )
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < spec.shape[0]:
        there = f"rows 0 to {spec.shape[0] - 1}" if spec.shape[0] else "no rows"
        raise SettingsError(
            f"rows lie between {int(rows.min())} and {int(rows.max())}, "
            f"but tensor {spec.key!r} has {there}"
        )


def check_one_key(subject: str, name: str, keys: Sequence[str]) -> None:
    """Raises SettingsError if a name that is asked for, for a subject, is that of several keys."""
    if len(keys) > 1:
        raise SettingsError(
            f"{subject}: {name!r} is the name of several tensors; name one by its key: "
            f"{' or '.join(map(repr, keys))}."
        )
