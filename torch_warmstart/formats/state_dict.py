"""torch state dicts: in memory, in a module, or in a `.pt` / `.pth` file.

Files are loaded with `weights_only=True`, always: a pickle that wants to run code is refused. Zip
files are memory-mapped by torch, so tensors that are not used are not read.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from torch_warmstart.bits import take_rows
from torch_warmstart.errors import CorruptCheckpointError, SettingsError, UnsupportedError
from torch_warmstart.formats.base import Checkpoint, Family, TensorSpec

_SHOWN = 8  # keys listed in an error


class StateDictCheckpoint(Checkpoint):
    """Tensors by name that are already in memory, or mapped."""

    format = "torch state_dict"
    family: Family = "torch"

    def __init__(self, state: Mapping[str, Any], url: str = "<state_dict>") -> None:
        """Keeps references to the tensors; entries that are no tensors are left out.

        Raises SettingsError if no entry is a tensor.
        """
        self.url = url
        self._tensors = {
            key: value
            for key, value in state.items()
            if isinstance(key, str) and isinstance(value, torch.Tensor)
        }
        self._metadata = getattr(state, "_metadata", None)
        if not self._tensors:
            raise SettingsError(_no_tensors(state, url))

    def metadata(self) -> Any:
        return self._metadata

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def _find(self, key: str) -> TensorSpec | None:
        tensor = self._tensors.get(key)
        if tensor is None:
            return None
        name = str(tensor.dtype).removeprefix("torch.")
        return TensorSpec(key, tuple(tensor.shape), tensor.dtype, name, _storage(tensor))

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        tensor = self._tensors[spec.key].detach()
        return tensor if rows is None else take_rows(tensor, rows.to(tensor.device))


def open_module(module: torch.nn.Module) -> StateDictCheckpoint:
    """A module's own state_dict as a checkpoint."""
    return StateDictCheckpoint(module.state_dict(), f"<{type(module).__name__}>")


def open_torch_file(url: str) -> StateDictCheckpoint:
    """A `.pt`, `.pth` or `.bin` file that holds a state dict."""
    return StateDictCheckpoint(_as_mapping(_load(url), url), url)


def _load(url: str) -> Any:
    try:
        try:
            return torch.load(url, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # the legacy format cannot be mapped
                raise
            return torch.load(url, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsupportedError(
            f"{url} holds more than tensors and plain containers, and loading that could run code: "
            f"{_first_line(error)} Load it where you trust it, and pass the state_dict itself: "
            "torch.save(model.state_dict(), ...) writes a file that can be read here."
        ) from error
    except Exception as error:  # torch raises whatever damaged bytes make its unpickler trip over
        raise CorruptCheckpointError(
            f"{url} cannot be read as a torch file: {_first_line(error)}"
        ) from error


def _as_mapping(loaded: Any, url: str) -> Mapping[str, Any]:
    if isinstance(loaded, Mapping):
        return loaded
    raise SettingsError(
        f"{url} holds a {type(loaded).__name__}, not a state_dict: a mapping of names to tensors."
    )


def _no_tensors(state: Mapping[str, Any], url: str) -> str:
    if not state:
        return f"{url} is empty: there is no tensor to take."
    nested = [k for k, v in state.items() if isinstance(v, Mapping | torch.nn.Module)]
    keys = ", ".join(repr(key) for key in list(state)[:_SHOWN])
    hint = f" Pass the part that is meant, for example state[{nested[0]!r}]." if nested else ""
    return f"{url} holds no tensor under a name of its own; its keys are {keys}.{hint}"


def _storage(tensor: torch.Tensor) -> object:
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return None  # nothing that has an address
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
