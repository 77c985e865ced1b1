"""Which of torch's tensors have values that can be read, and what the others are.

A state_dict may hold tensors whose bytes are not their values (quantised, sparse, nested ones),
that have none (on the meta device, lazy), or whose values only their own class knows. torch's
functions for plain tensors fail on them in ways of their own, or end the process.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from torch_warmstart.computing import pieces_of
from torch_warmstart.dtypes import (
    dtype_name,
    has_its_memory,
    has_own_dispatch,
    has_own_functions,
    masked_in,
)
from torch_warmstart.errors import CheckpointError, SettingsError, WarmStartError, as_sentence

_DEPTH = 4  # of mappings in a container, in which arrays are looked for
_QUANTISED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
_QUANTISED_TEXT = (
    "is quantised ({}): its bytes are not its values. Save what dequantize() makes of it"
)


def why_unreadable(tensor: torch.Tensor) -> str:
    """What a tensor is whose values cannot be read, to follow its name; "": they can."""
    if torch.nn.parameter.is_lazy(tensor):
        return "is a lazy parameter, which has no shape yet: run a batch through its model first"
    if has_own_dispatch(tensor) and pieces_of(tensor) is None:
        return _of_class(tensor)
    if tensor.is_nested:
        return "is a nested tensor, which has no one shape"
    if tensor.is_meta:
        return "is on the meta device and holds no values"
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.").removeprefix("_")
        return f"is {layout}, not strided. Save what to_dense() makes of it"
    freed = "" if has_its_memory(tensor) else "holds no values: its storage has been freed"
    return freed or why_unreadable_dtype(tensor.dtype)


def why_unreadable_dtype(dtype: torch.dtype) -> str:
    """The same, where only the dtype is known."""
    return _QUANTISED_TEXT.format(dtype_name(dtype)) if dtype in _QUANTISED else ""


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape; () for one that has none."""
    has_none = torch.nn.parameter.is_lazy(tensor) or tensor.is_nested
    return () if has_none else tuple(tensor.shape)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A readable tensor whose bytes are its values: conjugated and negated views are made so."""
    return tensor.detach().resolve_conj().resolve_neg()


def with_tensors(tree: Mapping[Any, Any], depth: int = _DEPTH) -> Mapping[Any, Any]:
    """A container with tensors for its numpy arrays, over the same memory where torch can.

    So for tensors whose class sees to torch's functions: their values are what their memory is.
    """
    entries = _read(tree)
    changed: dict[Any, Any] = {}
    for key, value in entries.items():
        if isinstance(value, torch.Tensor):
            if _is_of_own_functions(value):
                with torch._C.DisableTorchFunctionSubclass():
                    changed[key] = value.detach().as_subclass(torch.Tensor)
        elif isinstance(value, np.ndarray):
            _check_whole(key, value)
            tensor = _from_numpy(value)
            changed.update({} if tensor is None else {key: tensor})
        elif isinstance(value, Mapping) and depth:
            inner = with_tensors(value, depth - 1)
            changed.update({} if inner is value else {key: inner})
    return _made_of(tree, entries, changed)


def read_once(tree: Mapping[Any, Any], depth: int = _DEPTH) -> Mapping[Any, Any]:
    """A container of plain mappings, for those of the caller's classes, which are read here."""
    entries = _read(tree)
    inner = {k: v for k, v in entries.items() if isinstance(v, Mapping)} if depth else {}
    read = {key: read_once(value, depth - 1) for key, value in inner.items()}
    changed = {key: value for key, value in read.items() if value is not inner[key]}
    return _made_of(tree, entries, changed)


def _made_of(
    tree: Mapping[Any, Any], entries: Mapping[Any, Any], changed: Mapping[Any, Any]
) -> Mapping[Any, Any]:
    """A mapping with what it holds and what stands for some of that; itself, if it is the same."""
    if entries is tree and not changed:
        return tree
    made = OrderedDict({**entries, **changed})
    if hasattr(tree, "_metadata"):  # the versions of a module's state
        made._metadata = tree._metadata  # type: ignore[attr-defined]
    return made


def _read(tree: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """All that is in a mapping, read once: one of another class may make it, or fail to."""
    if type(tree) in (dict, OrderedDict):
        return tree
    try:
        return dict(tree.items())
    except WarmStartError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"The {type(tree).__name__} that is given as a checkpoint cannot be read: it raised "
            f"{type(error).__name__}: {as_sentence(str(error))}"
        ) from error


def _check_whole(key: Any, array: np.ndarray[Any, Any]) -> None:
    missing = masked_in(array)
    if missing:
        raise SettingsError(
            f"{key!r} is a masked array of numpy, and {missing:,} of {array.size:,} values are "
            "missing: say what stands for them, array.filled(...)."
        )


def _from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor | None:
    """None: torch has no such dtype."""
    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        is_plain = native.flags.writeable and all(stride >= 0 for stride in native.strides)
        return torch.from_numpy(native if is_plain else native.copy())
    except TypeError:
        return None


def _is_of_own_functions(tensor: torch.Tensor) -> bool:
    """Whether a subclass with plain memory decides what torch's functions do with it."""
    is_plain = not (has_own_dispatch(tensor) or torch.nn.parameter.is_lazy(tensor))
    return is_plain and has_own_functions(tensor)


def _of_class(tensor: torch.Tensor) -> str:
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        return (
            "is a DTensor whose part on this process is no box of it. Pass what full_tensor() "
            "makes of it, or what torch.distributed.checkpoint saved"
        )
    return (
        f"is a {type(tensor).__name__}, whose values only its own code knows. Pass a plain tensor, "
        "such as dequantize() makes of a quantised one"
    )
