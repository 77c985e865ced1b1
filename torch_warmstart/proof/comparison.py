"""What a model computed against what was recorded: one comparison for each tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_warmstart.dtypes import NO_PLAIN_TENSOR, has_its_memory, lies_in_memory
from torch_warmstart.errors import SettingsError
from torch_warmstart.values import frozen

_TOLERANCE = {torch.float64: 1e-10, torch.float16: 1e-2, torch.bfloat16: 3e-2}
_FLOAT32_TOLERANCE = 1e-5


@frozen
class Comparison:
    """One output, or one layer's output, against its record."""

    name: str  # "output", "output.logits", "output[1]", "encoder.0"
    shape: tuple[int, ...] | None  # what the model gave; None: nothing
    max_abs_error: float
    max_rel_error: float  # the largest absolute error by the largest absolute recorded value
    tolerance: float
    remark: str = ""
    shows_nothing: bool = False  # whether both agree in nothing but zeros, or have no value

    @property
    def ok(self) -> bool:
        """Whether it agrees."""
        return self.max_rel_error <= self.tolerance  # not where it is NaN


def compare(
    name: str, actual: Any, record: Any, rtol: float | None, *, channels_last: bool
) -> Iterator[Comparison]:
    """Every tensor of a record with its counterpart in what the model gave.

    Args:
        name: What it is called in comparisons.
        actual: What the model gave; None: nothing.
        record: An array, a sequence, or a mapping by name.
        rtol: The largest error allowed; None: what suits the dtype.
        channels_last: Whether the record's channels may be last where torch has them behind the
            batch; a remark says where they are.

    Raises SettingsError if the model gave no such part, or if model and record agree in nothing but
    NaN, which proves nothing.
    """
    more = {"channels_last": channels_last}
    if isinstance(record, Mapping):
        for key, part in record.items():
            yield from compare(f"{name}.{key}", _part(name, actual, key), part, rtol, **more)
    elif isinstance(record, list | tuple) and not _is_numbers(record):
        for at, part in enumerate(record):
            yield from compare(f"{name}[{at}]", _part(name, actual, at), part, rtol, **more)
    else:
        if isinstance(actual, list | tuple) and actual:
            actual = actual[0]  # a layer that gives more, such as its state
        record = as_tensor(record)
        for whose, tensor in (("the record", record), ("the model", actual)):
            if isinstance(tensor, torch.Tensor) and not lies_in_memory(tensor):
                raise SettingsError(f"verify_port: {name} of {whose} is {NO_PLAIN_TENSOR}")
        yield _compare_tensors(name, actual, record, rtol, channels_last)


def _part(name: str, actual: Any, key: Any) -> Any:
    if actual is None:
        return None
    try:
        return actual[key]
    except (KeyError, IndexError, TypeError):
        if isinstance(key, str) and hasattr(actual, key):
            return getattr(actual, key)
    has = f" It has {', '.join(map(repr, actual))}." if isinstance(actual, Mapping) else ""
    raise SettingsError(
        f"verify_port: {name} of the model, a {type(actual).__name__}, has no part {key!r}.{has}"
    )


def _compare_tensors(
    name: str, actual: Any, record: torch.Tensor, rtol: float | None, channels_last: bool
) -> Comparison:
    if not isinstance(actual, torch.Tensor):
        remark = "was not run" if actual is None else f"is a {type(actual).__name__}"
        return Comparison(name, None, float("nan"), float("nan"), rtol or 0.0, remark)
    shape = tuple(actual.shape)
    tolerance = _tolerance(actual, record) if rtol is None else rtol
    ways = [(record, "")] if record.shape == actual.shape else []
    if channels_last:
        ways += _moved(actual, record, "the record's channels are last")
    if not ways:
        moved = _moved(actual, record, "; give record.movedim(-1, 1) if its channels are last")
        remark = f"the record has shape {list(record.shape)}{''.join(hint for _, hint in moved)}"
        return Comparison(name, shape, float("nan"), float("nan"), tolerance, remark)
    errors = [(*_errors(actual, way), remark or _nan_remark(way)) for way, remark in ways]
    absolute, relative, remark = min(errors, key=lambda e: (math.isnan(e[1]), e[1]))
    if relative <= tolerance and record.numel() and bool(record.isnan().all()):
        raise SettingsError(
            f"verify_port: {name} is nothing but NaN in the record and in the model, which proves "
            "nothing. Record it again, or leave it out."
        )
    if not relative <= tolerance:
        remark = _activated(actual, [way for way, _ in ways], tolerance) or remark
        return Comparison(name, shape, absolute, relative, tolerance, remark)
    is_empty = not _has_values(record)
    if is_empty and record.numel():
        what = "zeros and infinities" if bool(record.isinf().any()) else "zeros"
        remark = f"nothing but {what}, which shows nothing"
    return Comparison(name, shape, absolute, relative, tolerance, remark, is_empty)


def check_shows_something(comparisons: Sequence[Comparison]) -> None:
    """Raises SettingsError where nothing of a record could depart from what a model computes."""
    if not all(comparison.shows_nothing for comparison in comparisons):
        return
    is_any = any(math.prod(comparison.shape or (0,)) for comparison in comparisons)
    what = "have no values"
    if is_any:  # what much else gives, too
        what = "are nothing but zeros or infinities, in the model too"
    inputs = ", from inputs that make it something else" if is_any else ""
    raise SettingsError(
        f"verify_port compared nothing: `expected` and `layers` {what}. Record at least one "
        f"output or layer of the original{inputs}."
    )


def _has_values(record: torch.Tensor) -> bool:
    """Whether anything in a record could depart."""
    return bool((record.isfinite() & (record != 0)).any())


def _moved(
    actual: torch.Tensor, record: torch.Tensor, remark: str
) -> list[tuple[torch.Tensor, str]]:
    """The record with its channels moved to where torch has them, if it has the shape then."""
    if record.ndim < 3 or record.movedim(-1, 1).shape != actual.shape:
        return []
    return [(record.movedim(-1, 1), remark)]


# What Keras puts into a layer (`Dense(activation=...)`) where torch has a module of its own.
_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(-1),
    "gelu": torch.nn.functional.gelu,
}


def _activated(actual: torch.Tensor, ways: Sequence[torch.Tensor], tolerance: float) -> str:
    """A remark, if the record is what an activation makes of the model's output."""
    if not actual.is_floating_point():
        return ""
    for name, activate in _ACTIVATIONS.items():
        if any(_errors(activate(actual), way)[1] <= tolerance for way in ways):
            return f"the record is the {name} of it: compare it with the module behind"
    return ""


def _nan_remark(record: torch.Tensor) -> str:
    """What is NaN in both counts as the same, which proves little."""
    count = int(record.isnan().sum())
    return f"{count:,} of the record's {record.numel():,} values are NaN" if count else ""


def _errors(actual: torch.Tensor, record: torch.Tensor) -> tuple[float, float]:
    """The largest absolute error, and the same by the largest absolute recorded value."""
    if not record.numel():
        return 0.0, 0.0
    mine, theirs = (t.detach().cpu() for t in (actual, record))
    whole = not any(t.is_floating_point() or t.is_complex() for t in (mine, theirs))
    differ = mine != theirs if whole else None  # exactly; float64 cannot hold every int64
    mine, theirs = (t.to(_wide(t)) for t in (mine, theirs))
    same = (mine == theirs) | (mine.isnan() & theirs.isnan())  # infinities have no difference
    apart = torch.where(same, 0.0, (mine - theirs).abs())
    absolute = float(
        (apart if differ is None else torch.where(differ, apart.clamp(1.0), 0.0)).max()
    )
    scale = float(theirs.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return absolute, absolute / scale if scale else (float("inf") if absolute else 0.0)


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _tolerance(actual: torch.Tensor, record: torch.Tensor) -> float:
    """What rounding may do in the narrower of the two dtypes."""
    dtypes = [t.dtype for t in (actual, record) if t.is_floating_point()]
    return max((_TOLERANCE.get(dtype, _FLOAT32_TOLERANCE) for dtype in dtypes), default=0.0)


def as_tensor(value: Any) -> torch.Tensor:
    """A tensor, or an array as one; raises SettingsError for anything else."""
    if isinstance(value, torch.Tensor):
        if value.is_meta or not has_its_memory(value):
            why = "it is on the meta device" if value.is_meta else "its storage has been freed"
            raise SettingsError(f"verify_port: a tensor has no values: {why}.")
        return value
    try:
        array = np.asarray(value)  # of TensorFlow's tensors and of mapped files, not to be written
        return torch.as_tensor(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"verify_port takes tensors and arrays, not a {type(value).__name__} ({error})."
        ) from error


def _is_numbers(record: Sequence[Any]) -> bool:
    return bool(record) and all(isinstance(value, int | float) for value in record)
