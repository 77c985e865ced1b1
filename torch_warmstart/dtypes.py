"""The same bytes under a dtype that every torch kernel knows; and which dtype becomes which.

torch has no `index_select`, `index_copy_` or masked copy for uint16, float8 and others on every
device; moving rows does not look at their values, so integers of the same size do as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their size
PLAIN = (torch.Tensor, torch.nn.Parameter)  # themselves: what is sharded is of another type
_OF_SOME_BITS = [f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)]
# In which libraries keep quantised numbers: torch has no more of them than the names.
_NEVER_COPIED = {getattr(torch, name) for name in (*_OF_SOME_BITS, "bit") if hasattr(torch, name)}
_KNOWN_EVERYWHERE = {torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8}

NO_PLAIN_TENSOR = (  # what follows who has given or returned one
    "a tensor that is sparse, nested, freed, or on the meta device, without values: make it a "
    "plain one, as tensor.to_dense() does of a sparse one."
)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, for people."""
    return str(dtype).removeprefix("torch.")


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """A view of `tensor` with elements of the same size; no copy, any strides."""
    if tensor.dtype in _KNOWN_EVERYWHERE or tensor.dtype.itemsize not in INTEGERS:
        return tensor  # complex128, of 16 bytes, is known everywhere too
    return tensor.view(INTEGERS[tensor.dtype.itemsize])


def as_copied(tensor: torch.Tensor) -> torch.Tensor:
    """A view that torch can copy to one of the same dtype: of numbers of some bits it can none."""
    return tensor.view(torch.uint8) if tensor.dtype in _NEVER_COPIED else tensor


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A view of `tensor` as uint8, with the bytes of an element as another dimension, the last."""
    return tensor.unsqueeze(-1).view(torch.uint8)


def is_aligned(tensor: torch.Tensor) -> bool:
    """Whether it begins at an address that torch's kernels expect of its dtype."""
    return tensor.data_ptr() % tensor.element_size() == 0


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, or where it begins at another address, a copy."""
    if is_aligned(tensor):
        return tensor
    return as_bytes(tensor).clone().view(tensor.dtype).squeeze(-1)


# What is cast, as a refusal says it; `cast_is_lossy` decides it.
CASTS = "only floating types are cast to each other, and integers to wider ones"


def cast_is_lossy(
    old: torch.dtype, new: torch.dtype, *, by_callers_choice: bool = False
) -> bool | None:
    """Whether numbers lose something when they become another dtype; None: no cast that is made.

    Floating types are cast to each other, integers to wider ones; and to floating types where it is
    the caller who chose both tensors.
    """
    if by_callers_choice and is_integer(old) and new.is_floating_point:
        return torch.iinfo(old).max > 2 / torch.finfo(new).eps
    if old.is_floating_point and new.is_floating_point:
        return not _holds_all_of(new, old)
    if is_integer(old) and is_integer(new) and _covers(new, old):
        return False
    return None


def loses_values(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a dtype cannot hold what a tensor has: fractions, imaginary parts, large numbers.

    That fractions are rounded is no loss.
    """
    if is_integer(tensor.dtype) and is_integer(dtype):
        return not (_covers(dtype, tensor.dtype) or _is_within(tensor, torch.iinfo(dtype)))
    if dtype.is_floating_point and not tensor.is_complex():
        info = torch.iinfo if is_integer(tensor.dtype) else torch.finfo
        if tensor.dtype == torch.bool or info(tensor.dtype).max <= torch.finfo(dtype).max:
            return False
        is_as_it_is = tensor.is_floating_point() and tensor.dtype.itemsize > 1
        wide = tensor if is_as_it_is else tensor.to(torch.float32)
        bounds = torch.finfo(dtype)
        highest = bounds.max * (1 + bounds.eps / 2)  # what is rounded to the last number
        held = _cast(wide, dtype).isfinite() & (wide.abs() <= highest)
        return bool((wide.isfinite() & ~held).any())
    if torch.can_cast(tensor.dtype, dtype):
        return False
    if tensor.is_complex():
        return bool(tensor.imag.any()) or loses_values(tensor.real, dtype)
    return not torch.equal(tensor, _cast(tensor, dtype))


def _is_within(tensor: torch.Tensor, bounds: torch.iinfo) -> bool:
    """Whether all integers are; by numpy, whose unsigned ones have an order."""
    if not tensor.numel():
        return True
    values = tensor.detach().cpu().numpy()
    return bounds.min <= int(values.min()) and int(values.max()) <= bounds.max


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What a dtype makes of numbers, as they were."""
    return tensor.to(dtype).to(tensor.dtype)


def summed_in(*dtypes: torch.dtype) -> torch.dtype:
    """What floating numbers are summed in: float64 where one is that, else float32.

    Torch's own rule knows nothing of types of one byte.
    """
    return torch.float64 if torch.float64 in dtypes else torch.float32


def lies_in_memory(tensor: torch.Tensor) -> bool:
    """Whether it is a plain tensor: of strides, with values."""
    is_plain = tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_nested)
    return is_plain and has_its_memory(tensor)


def has_its_memory(tensor: torch.Tensor) -> bool:
    """Whether the storage of a plain tensor has all that its shape speaks of.

    Whoever saves memory sets a storage to no bytes while it is not needed (sharded parameters,
    offloading); to read such a tensor, or to write to it, ends the process.
    """
    if tensor.is_nested or tensor.layout is not torch.strided or not tensor.numel():
        return True
    if type(tensor) not in PLAIN:  # its memory may be that of parts
        return True
    end = tensor.storage_offset() + span_of(tensor)
    return end * tensor.element_size() <= tensor.untyped_storage().nbytes()


def has_own_dispatch(tensor: torch.Tensor) -> bool:
    """Whether a subclass decides what every operation on it does, as DTensor and torchao's do.

    Its values are then not those of its memory.
    """
    own = type(tensor).__torch_dispatch__
    return bool(own is not torch.Tensor.__torch_dispatch__)


def masked_in(given: object) -> int:
    """How many values numpy's mask leaves out: what lies there is any number, and none is meant."""
    return int(np.sum(given.mask)) if isinstance(given, np.ma.MaskedArray) else 0


def has_own_functions(tensor: torch.Tensor) -> bool:
    """Whether its class has a say in what torch's functions do with it."""
    if type(tensor) in PLAIN:
        return False
    own = type(tensor).__torch_function__
    stock = (torch.Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl)  # type: ignore[attr-defined]
    return getattr(own, "__func__", own) not in stock


def why_no_values() -> str:
    """Why tensors that are made here are none that are read and written; "" if they are.

    A mode of the caller's makes them believe, or a transform follows what is done with them.
    """
    made = torch.empty(1, dtype=torch.bool, device="cpu")
    if type(made) is not torch.Tensor:
        kind = type(made).__name__
        return f"Tensors that are made here hold no values: they are {kind}s, as FakeTensorMode's"
    try:
        has_memory = made.data_ptr() != 0
    except RuntimeError:
        has_memory = False
    followed = "Tensors that are made here are followed by a transform: torch.func's grad, jvp"
    return "" if has_memory else f"{followed} or functionalize"


def span_of(tensor: torch.Tensor) -> int:
    """From a tensor's first element to its last, in elements."""
    if tensor.is_contiguous():
        return tensor.numel()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


def is_integer(dtype: torch.dtype) -> bool:
    """Whether it holds whole numbers, signed or not."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _holds_all_of(target: torch.dtype, source: torch.dtype) -> bool:
    wide, narrow = torch.finfo(target), torch.finfo(source)
    return (
        wide.eps <= narrow.eps
        and wide.max >= narrow.max
        and wide.smallest_normal * wide.eps <= narrow.smallest_normal * narrow.eps
    )


def _covers(target: torch.dtype, source: torch.dtype) -> bool:
    wide, narrow = torch.iinfo(target), torch.iinfo(source)
    return wide.min <= narrow.min and wide.max >= narrow.max


def take_rows(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`tensor.index_select(0, rows)` for every dtype."""
    return as_bits(tensor).index_select(0, rows).view(tensor.dtype)


def as_python(value: Any) -> Any:
    """A number of numpy's as Python's; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
