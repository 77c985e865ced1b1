"""torch state dicts in memory: a mapping, a container of one, or a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from torch_warmstart.bits import dtype_name, take_rows
from torch_warmstart.formats import nested
from torch_warmstart.formats.base import Checkpoint, Family, TensorSpec


class StateDictCheckpoint(Checkpoint):
    """Tensors by name that are already in memory, or mapped."""

    family: Family = "torch"

    def __init__(
        self,
        state: Mapping[str, Any],
        url: str = "<state_dict>",
        *,
        entry: str | None = None,
        format: str = "torch state_dict",
    ) -> None:
        """Keeps references to the tensors; entries that are no tensors are left out.

        Args:
            state: A state_dict, or what holds one under `entry`.
            url: Where it is, for messages.
            entry: Which mapping of a nested container is meant; None: there must be only one.
            format: What it is, for messages.

        Raises:
            SettingsError: no entry is a tensor, or several mappings could be meant.
        """
        self.url = url
        path, chosen = nested.choose(state, url, entry, torch.Tensor)
        self.format = f"{format}, entry {path!r}" if path else format
        self._tensors = {
            key: value
            for key, value in chosen.items()
            if isinstance(key, str) and isinstance(value, torch.Tensor)
        }
        self._metadata = getattr(chosen, "_metadata", None)

    def metadata(self) -> Any:
        return self._metadata

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def _find(self, key: str) -> TensorSpec | None:
        tensor = self._tensors.get(key)
        if tensor is None:
            return None
        name = dtype_name(tensor.dtype)
        return TensorSpec(key, tuple(tensor.shape), tensor.dtype, name, _storage(tensor))

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        tensor = self._tensors[spec.key].detach()
        return tensor if rows is None else take_rows(tensor, rows.to(tensor.device))


def open_module(module: torch.nn.Module) -> StateDictCheckpoint:
    """A module's own state_dict as a checkpoint."""
    return StateDictCheckpoint(module.state_dict(), f"<{type(module).__name__}>")


def _storage(tensor: torch.Tensor) -> object:
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return None  # nothing that has an address
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
