"""torch state dicts in memory: a mapping, a container of one, or a module."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.computing import Box, assembled, pieces_of
from torch_warmstart.dtypes import dtype_name, take_rows
from torch_warmstart.errors import UnsupportedError, printable
from torch_warmstart.formats import nested
from torch_warmstart.formats.base import Block, Checkpoint, Family, TensorSpec
from torch_warmstart.formats.families import family_of
from torch_warmstart.formats.saved_optimizers import SavedOptimizer, find_optimizers, may_be_slot
from torch_warmstart.formats.tensors import plain, shape_of, why_unreadable, with_tensors

_IN_MEMORY = "torch state_dict"
_LONGEST = 60  # characters of a value beside the tensors


class StateDictCheckpoint(Checkpoint):
    """Tensors by name that are already in memory, or mapped."""

    family: Family = "torch"

    def __init__(
        self,
        state: Mapping[str, Any],
        url: str = "<state_dict>",
        *,
        entry: str | None = None,
        format: str = _IN_MEMORY,
        wanted: Collection[str] = (),
    ) -> None:
        """Keeps references to the tensors; entries that are no tensors are left out.

        Args:
            state: A state_dict, or what holds one under `entry`.
            url: Where it is, for messages.
            entry: Which mapping of a nested container is meant; None: there must be only one.
            format: What it is, for messages.
            wanted: The names of a model's tensors, which tell what is meant of several.

        Raises:
            SettingsError: no entry is a tensor, or several mappings could be meant.
        """
        self.url: str = url
        self.is_callers: bool = format == _IN_MEMORY
        state = with_tensors(state)
        path, chosen = nested.choose(state, url, entry, torch.Tensor, wanted)
        self.format: str = f"{format}, entry {path!r}" if path else format
        self._tensors = {
            key: value
            for key, value in chosen.items()
            if isinstance(key, str) and isinstance(value, torch.Tensor)
        }
        self.others: dict[Any, Any] = {
            key: value for key, value in chosen.items() if not isinstance(value, torch.Tensor)
        }
        self._extra_states = tuple(
            key
            for key, value in chosen.items()
            if isinstance(key, str)
            and nested.is_extra_state(key)
            and not isinstance(value, torch.Tensor)
        )
        self._metadata = getattr(chosen, "_metadata", None)
        if self._metadata is None:  # a module's own has it; a dict is anybody's
            self.family = family_of(self._tensors, within=path)
        self._container = state  # optimizers' states lie beside what was chosen
        self.entry: str = path

    def metadata(self) -> Any:
        return self._metadata

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def averages(self) -> tuple[nested.Averages, ...]:
        return nested.find_averages(self._container, torch.Tensor, self.entry)

    def entries_beside(self) -> str:
        return nested.entries_beside(self._container, torch.Tensor, self.entry)

    def entries_alike(self, keys: Sequence[str]) -> tuple[str, ...]:
        return nested.entries_alike(self._container, torch.Tensor, self.entry, keys)

    def extra_states(self) -> tuple[str, ...]:
        return self._extra_states

    def besides(self) -> Mapping[str, str]:
        optimizers = (saved.path.split("/")[0] for saved in self.optimizer_states())
        told = {self.entry.split("/")[0], *optimizers, *self._tensors}
        aside = {
            str(key): _in_words(value)
            for key, value in self._container.items()
            if str(key) not in told
        }
        return {**super().besides(), **aside}

    def optimizer_states(self) -> tuple[SavedOptimizer, ...]:
        return self._optimizers[0]

    @functools.cached_property
    def _optimizers(self) -> tuple[tuple[SavedOptimizer, ...], dict[str, torch.Tensor]]:
        """With their tensors by key."""
        return find_optimizers(self._container)

    def _tensor(self, key: str) -> torch.Tensor | None:
        tensor = self._tensors.get(key)
        if tensor is None and may_be_slot(key):
            return self._optimizers[1].get(key)
        return tensor

    def _find(self, key: str) -> TensorSpec | None:
        tensor = self._tensor(key)
        if tensor is None:
            return None
        shape, name = shape_of(tensor), dtype_name(tensor.dtype)
        unreadable = why_unreadable(tensor)
        if unreadable:
            return TensorSpec(key, shape, None, name, unreadable=unreadable)
        return TensorSpec(key, shape, tensor.dtype, name, _storage(tensor))

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        found = self._tensor(spec.key)
        assert found is not None  # it has a spec
        if pieces_of(found) is not None:
            whole = self._view_box(spec, Box.whole(spec.shape))
            return whole if rows is None else take_rows(whole, rows.to(whole.device))
        tensor = plain(found)
        return tensor if rows is None else take_rows(tensor, rows.to(tensor.device))

    def pieces(self, key: str) -> Sequence[tuple[Box, torch.Tensor]] | None:
        pieces = pieces_of(self._tensor(key))
        return None if pieces is None else [(box, plain(tensor)) for box, tensor in pieces]

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        if self.is_in_parts(spec.key):
            return self._box_blocks(spec, rows, Box.whole(spec.shape))
        return super()._row_blocks(spec, rows)

    def _box_blocks(self, spec: TensorSpec, rows: torch.Tensor, box: Box) -> Sequence[Block]:
        found = self._tensor(spec.key)
        pieces = pieces_of(found)
        if pieces is None:
            return super()._box_blocks(spec, rows, box)
        wanted = rows[rows >= 0]
        having = [(outer, plain(t)) for outer, t in pieces if _has_columns(outer, box)]
        there = torch.zeros_like(wanted, dtype=torch.bool)
        for outer, _ in having:
            there |= outer.holds(wanted)
        if not bool(there.all()):
            raise self._elsewhere(spec, f"row {int(wanted[~there][0])} of it")
        blocks = {
            outer.offsets[0]: box.spread(0, outer.sizes[0]).within(_at_row_0(outer)).of(tensor)
            for outer, tensor in having
        }
        assert found is not None  # it has pieces
        nothing = torch.zeros((), dtype=found.dtype, device=found.device)
        return [*_without_gaps(blocks, nothing, box.sizes)]

    def _view_box(self, spec: TensorSpec, box: Box) -> torch.Tensor:
        found = self._tensor(spec.key)
        pieces = pieces_of(found)
        if pieces is None or found is None:
            return super()._view_box(spec, box)
        part = assembled([(outer, plain(tensor)) for outer, tensor in pieces], box, found)
        if part is None:
            raise self._elsewhere(spec, "what becomes this process's part")
        return part

    def _elsewhere(self, spec: TensorSpec, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.url}: tensor {spec.key!r} is spread over processes, and {what} lies on another "
            "one, which takes no part here. Pass process_group= of all of them to warm_start, on "
            "each, or save it, "
            "torch.distributed.checkpoint.save(state, checkpoint_id=directory), and pass the "
            "directory."
        )


def _has_columns(outer: Box, box: Box) -> bool:
    """Whether a piece has all that a box has of the rows that it has."""
    wanted = box.spread(0, outer.sizes[0])
    inner = Box((outer.offsets[0], *wanted.offsets[1:]), wanted.sizes)
    return inner.numel > 0 and outer.common(inner) == inner


def _without_gaps(
    blocks: Mapping[int, torch.Tensor], nothing: torch.Tensor, sizes: Sequence[int]
) -> Iterator[Block]:
    """Blocks by their first row, with zeros without memory for the rows that nobody looks at."""
    end = 0
    for first in sorted(blocks):
        if first > end:
            yield end, nothing.expand(first - end, *sizes[1:])
        yield first, blocks[first]
        end = first + len(blocks[first])
    if end < sizes[0]:
        yield end, nothing.expand(sizes[0] - end, *sizes[1:])


def _at_row_0(box: Box) -> Box:
    return Box((0, *box.offsets[1:]), box.sizes)


def open_module(module: torch.nn.Module) -> StateDictCheckpoint:
    """A module's own state_dict as a checkpoint."""
    return StateDictCheckpoint(module.state_dict(), f"<{type(module).__name__}>")


def _in_words(value: object) -> str:
    """What an entry is: its value, if that is a short one."""
    if isinstance(value, bool | int | float | str | None):
        try:
            text = repr(value[:_LONGEST] if isinstance(value, str) else value)
        except ValueError:  # a number of too many digits
            text = "a number"
        return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    kind = printable(type(value).__qualname__)  # of what stands for another: that one's
    if isinstance(value, torch.Tensor):
        return f"{dtype_name(value.dtype)} {list(shape_of(value))}"
    if isinstance(value, Mapping | list | tuple | set):
        return f"{kind} of {len(value):,}"
    return kind


def _storage(tensor: torch.Tensor) -> object:
    if pieces_of(tensor) is not None:
        return id(tensor)  # two of one memory are found to be one only where they are one object
    if not tensor.numel():
        return None  # nothing that has an address
    views = (tensor.is_conj(), tensor.is_neg())
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, *views)
