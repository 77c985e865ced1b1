"""The proof of a port: what a model computes, compared with what was recorded from the original."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch_warmstart.errors import SettingsError, did_you_mean, plural
from torch_warmstart.tables import render
from torch_warmstart.variables import module_names

_TOLERANCE = {torch.float64: 1e-10, torch.float16: 1e-2, torch.bfloat16: 3e-2}
_FLOAT32_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output, or one layer's output, against its record."""

    name: str  # "output", "output.logits", "output[1]", "encoder.0"
    shape: tuple[int, ...] | None  # what the model gave; None: nothing
    max_abs_error: float
    max_rel_error: float  # the largest absolute error by the largest absolute recorded value
    tolerance: float
    remark: str = ""

    @property
    def ok(self) -> bool:
        """Whether it agrees."""
        return self.max_rel_error <= self.tolerance  # not where it is NaN


@dataclass(frozen=True, slots=True, repr=False)
class PortCheck:
    """What `verify_port` found; true if everything agrees. `print()` it."""

    layers: tuple[Comparison, ...]  # in the order in which the model ran them
    outputs: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether every output and every layer agrees."""
        return all(c.ok for c in (*self.layers, *self.outputs))

    @property
    def first_departure(self) -> str | None:
        """The first layer, in the order of running, that departs from its record."""
        return next((c.name for c in (*self.layers, *self.outputs) if not c.ok), None)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        rows = [_cells("layer", c) for c in self.layers] + [
            _cells("output", c) for c in self.outputs
        ]
        table = render(("", "name", "shape", "max abs", "max rel", "allowed", ""), rows)
        return f"{table}\n\n{self._verdict()}"

    __repr__ = __str__

    def _verdict(self) -> str:
        everything = (*self.layers, *self.outputs)
        bad = [c for c in everything if not c.ok]
        if not bad:
            return f"The port agrees with the record in {plural(len(everything), 'place')}."
        first = bad[0]
        agreeing = [c.name for c in self.layers[: _index(self.layers, first)] if c.ok]
        after = f", after {agreeing[-1]!r} still agreed" if agreeing else ""
        places = plural(len(everything), "place")
        return (
            f"The port departs from the record in {len(bad)} of {places}; the first is "
            f"{first.name!r}{after}."
        )


def verify_port(
    model: torch.nn.Module,
    inputs: Any,
    expected: Any,
    *,
    layers: Mapping[str, Any] | None = None,
    rtol: float | None = None,
) -> PortCheck:
    """Runs a ported model on recorded inputs and compares what it computes with the record.

    The model runs once, in eval mode and without gradients; its mode is restored.

    Args:
        model: The ported model.
        inputs: What the model is called with: a tensor or array, a sequence of them (positional),
            or a mapping (by keyword); bool, str and None go in as they are. Tensors are moved to
            the model's device.
        expected: What the original computed, in the structure of the model's output: an array, a
            sequence, or a mapping by name; what it leaves out is not compared.
        layers: Module name to what the original computed there, for a comparison layer by layer.
            The record of a convolution may have its channels last, as TensorFlow has them.
        rtol: The largest error allowed, as a part of the largest absolute recorded value. None:
            1e-5, or what suits the model's dtype (1e-10 for float64).

    Returns:
        The largest absolute and relative error of each; true if all agree.

    Raises:
        SettingsError: there is no such module, or the model's output has no such part.

    Example:
        >>> check = verify_port(torch.nn.Identity(), torch.ones(2), torch.ones(2))
        >>> bool(check)
        True
    """
    wanted = {name: _modules(model, name) for name in layers or {}}
    seen: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_eval_mode(model))
        for name, module in wanted.items():
            stack.enter_context(_recorded(name, module, seen))
        output = _call(model, inputs)
    compared = {
        name: list(_compare(name, seen.get(name), record, rtol))
        for name, record in (layers or {}).items()
    }
    in_order = [*seen, *(name for name in compared if name not in seen)]
    return PortCheck(
        layers=tuple(comparison for name in in_order for comparison in compared[name]),
        outputs=tuple(_compare("output", output, expected, rtol)),
    )


# -- running the model -----------------------------------------------------------------------------


def _modules(model: torch.nn.Module, name: str) -> torch.nn.Module:
    modules = module_names(model)
    wanted = name.replace("/", ".")
    if wanted not in modules:
        raise SettingsError(
            f"verify_port: the model has no module {name!r}.{did_you_mean(wanted, modules)}"
        )
    return modules[wanted]


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _recorded(name: str, module: torch.nn.Module, seen: dict[str, Any]) -> Iterator[None]:
    """Keeps what a module gives when it is first called."""

    def record(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        seen.setdefault(name, _detached(output))

    handle = module.register_forward_hook(record)
    try:
        yield
    finally:
        handle.remove()


def _detached(output: Any) -> Any:
    """A copy: what follows may change a layer's output in place, as `ReLU(inplace=True)` does."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), output)


def _call(model: torch.nn.Module, inputs: Any) -> Any:
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    if isinstance(inputs, Mapping):
        return model(**{name: _argument(value, device) for name, value in inputs.items()})
    if isinstance(inputs, list | tuple):
        return model(*(_argument(value, device) for value in inputs))
    return model(_argument(inputs, device))


def _argument(value: Any, device: torch.device) -> Any:
    """Arrays as tensors on the model's device; flags, texts and the like as they are."""
    if value is None or isinstance(value, bool | str):
        return value
    return _tensor(value).to(device)


# -- comparing -------------------------------------------------------------------------------------


def _compare(name: str, actual: Any, record: Any, rtol: float | None) -> Iterator[Comparison]:
    """Every tensor of the record with its counterpart."""
    if isinstance(record, Mapping):
        for key, part in record.items():
            yield from _compare(f"{name}.{key}", _part(name, actual, key), part, rtol)
    elif isinstance(record, list | tuple) and not _is_numbers(record):
        for at, part in enumerate(record):
            yield from _compare(f"{name}[{at}]", _part(name, actual, at), part, rtol)
    else:
        if isinstance(actual, list | tuple) and actual:
            actual = actual[0]  # a layer that gives more, such as its state
        yield _compare_tensors(name, actual, _tensor(record), rtol)


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
    name: str, actual: Any, record: torch.Tensor, rtol: float | None
) -> Comparison:
    if not isinstance(actual, torch.Tensor):
        remark = "was not run" if actual is None else f"is a {type(actual).__name__}"
        return Comparison(name, None, float("nan"), float("nan"), rtol or 0.0, remark)
    shape = tuple(actual.shape)
    tolerance = _tolerance(actual, record) if rtol is None else rtol
    ways = list(_same_shape(actual, record))
    if not ways:
        remark = f"the record has shape {list(record.shape)}"
        return Comparison(name, shape, float("nan"), float("nan"), tolerance, remark)
    errors = [(*_errors(actual, way), remark or _nan_remark(way)) for way, remark in ways]
    absolute, relative, remark = min(errors, key=lambda e: (math.isnan(e[1]), e[1]))
    return Comparison(name, shape, absolute, relative, tolerance, remark)


def _same_shape(actual: torch.Tensor, record: torch.Tensor) -> Iterator[tuple[torch.Tensor, str]]:
    """The record as it is, and with its channels moved to where torch has them."""
    if record.shape == actual.shape:
        yield record, ""
    if record.ndim >= 3 and record.movedim(-1, 1).shape == actual.shape:
        yield record.movedim(-1, 1), "the record's channels are last"


def _nan_remark(record: torch.Tensor) -> str:
    """What is NaN in both counts as the same, which proves little."""
    count = int(record.isnan().sum())
    return f"{count:,} of the record's {record.numel():,} values are NaN" if count else ""


def _errors(actual: torch.Tensor, record: torch.Tensor) -> tuple[float, float]:
    """The largest absolute error, and the same by the largest absolute recorded value."""
    if not record.numel():
        return 0.0, 0.0
    mine, theirs = (t.detach().cpu().to(_wide(t)) for t in (actual, record))
    same = (mine == theirs) | (mine.isnan() & theirs.isnan())  # infinities have no difference
    absolute = float(torch.where(same, 0.0, (mine - theirs).abs()).max())
    scale = float(theirs.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return absolute, absolute / scale if scale else (float("inf") if absolute else 0.0)


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _tolerance(actual: torch.Tensor, record: torch.Tensor) -> float:
    """What rounding may do in the narrower of the two dtypes."""
    dtypes = [t.dtype for t in (actual, record) if t.is_floating_point()]
    return max((_TOLERANCE.get(dtype, _FLOAT32_TOLERANCE) for dtype in dtypes), default=0.0)


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
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


# -- text ------------------------------------------------------------------------------------------


def _cells(kind: str, comparison: Comparison) -> tuple[str, ...]:
    shape = "" if comparison.shape is None else str(list(comparison.shape))
    errors = (_error(comparison.max_abs_error), _error(comparison.max_rel_error))
    verdict = comparison.remark if comparison.ok else f"DEPARTS {comparison.remark}".rstrip()
    return kind, comparison.name, shape, *errors, f"{comparison.tolerance:.0e}", verdict


def _error(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1e}"


def _index(comparisons: Sequence[Comparison], one: Comparison) -> int:
    return comparisons.index(one) if one in comparisons else len(comparisons)
