"""torch state dicts in memory: a mapping, a container of one, or a module."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from torch_warmstart.dtypes import dtype_name, take_rows
from torch_warmstart.formats import nested
from torch_warmstart.formats.base import Checkpoint, Family, TensorSpec
from torch_warmstart.formats.families import family_of
from torch_warmstart.formats.saved_optimizers import SavedOptimizer, find_optimizers, may_be_slot
from torch_warmstart.formats.tensors import plain, shape_of, why_unreadable, with_tensors

EXTRA_STATE = "_extra_state"  # torch's name for it, behind its module's
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
        self._extra_states = tuple(
            key
            for key, value in chosen.items()
            if isinstance(key, str)
            and key.rpartition(".")[2] == EXTRA_STATE
            and not isinstance(value, torch.Tensor)
        )
        self._metadata = getattr(chosen, "_metadata", None)
        if self._metadata is None and not path:  # a module's own has it; a dict is anybody's
            self.family = family_of(self._tensors)
        self._path = path
        self._container = state  # optimizers' states lie beside what was chosen
        self._path = path

    def metadata(self) -> Any:
        return self._metadata

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def averages(self) -> tuple[nested.Averages, ...]:
        return nested.find_averages(self._container, torch.Tensor, self._path)

    def entries_beside(self) -> str:
        return nested.entries_beside(self._container, torch.Tensor, self._path)

    def extra_states(self) -> tuple[str, ...]:
        return self._extra_states

    def besides(self) -> Mapping[str, str]:
        optimizers = (saved.path.split("/")[0] for saved in self.optimizer_states())
        told = {self._path.split("/")[0], *optimizers, *self._tensors}
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
        tensor = plain(found)
        return tensor if rows is None else take_rows(tensor, rows.to(tensor.device))


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
    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        return f"{dtype_name(value.dtype)} {list(shape_of(value))}"
    if isinstance(value, Mapping | list | tuple | set):
        return f"{kind} of {len(value):,}"
    return kind


def _storage(tensor: torch.Tensor) -> object:
    if not tensor.numel():
        return None  # nothing that has an address
    views = (tensor.is_conj(), tensor.is_neg())
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, *views)
