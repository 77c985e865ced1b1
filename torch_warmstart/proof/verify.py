"""The proof of a port: what a model computes, compared with what was recorded from the original."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from torch_warmstart.display import VERSION, render, terminal_width
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import (
    SettingsError,
    check_kind,
    did_you_mean,
    is_number,
    plural,
    shown_value,
)
from torch_warmstart.model import Journal, module_names, modules_of, tensors_of
from torch_warmstart.proof.comparison import Comparison, as_tensor, check_shows_something, compare
from torch_warmstart.storage import alone_with
from torch_warmstart.values import frozen


@frozen(repr=False)
class PortCheck:
    """What `verify_port` found; true if everything agrees. `print()` it."""

    layers: tuple[Comparison, ...]  # in the order in which the model ran them
    outputs: tuple[Comparison, ...]
    cast: str = ""  # how the recorded inputs were cast to the model's dtype, if they were

    @property
    def ok(self) -> bool:
        """Whether every output and every layer agrees."""
        return all(c.ok for c in (*self.layers, *self.outputs))

    @property
    def first_departure(self) -> str | None:
        """The first layer, in the order of running, that departs from its record."""
        return next((c.name for c in self._departing()), None)

    def _departing(self) -> Iterator[Comparison]:
        return (c for c in (*self.layers, *self.outputs) if not c.ok)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        rows = [_cells("layer", c) for c in self.layers] + [
            _cells("output", c) for c in self.outputs
        ]
        table = render(_COLUMNS, rows, width=terminal_width())
        cast = f"The inputs were cast: {self.cast}.\n" if self.cast else ""
        return f"{table}\n\n{cast}{self._verdict()}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        everything = (*self.layers, *self.outputs)
        return {
            "version": VERSION,
            "kind": "port-check",
            "ok": self.ok,
            "first_departure": self.first_departure,
            "layers": [asdict(each) for each in self.layers],
            "outputs": [asdict(each) for each in self.outputs],
            "totals": {
                "compared": len(everything),
                "departing": sum(not each.ok for each in everything),
            },
        }

    def __repr__(self) -> str:
        return f"<PortCheck: {self._verdict()}>"

    def _verdict(self) -> str:
        everything = (*self.layers, *self.outputs)
        bad = [*self._departing()]
        if not bad:
            shown = [c for c in everything if not c.shows_nothing]
            return f"The port agrees with the record in {plural(len(shown), 'place')}."
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

    The model runs once, in eval mode and without gradients. What that changes is undone: its mode,
    what layers count or keep, weights that they merge for eval mode, random numbers of the CPU.

    Args:
        model: The ported model.
        inputs: What the model is called with: a tensor or array, a sequence of them (positional),
            or a mapping (by keyword); bool, str and None go in as they are. Tensors are moved to
            the model's device, and floating ones cast to its dtype, as Keras does; the result says
            if they were.
        expected: What the original computed, in the structure of the model's output: an array, a
            sequence, or a mapping by name; what it leaves out is not compared. Its axes are in
            the order of the model's.
        layers: Module name to what the original computed there, for a comparison layer by layer.
            Here a record may have its channels last, as TensorFlow has them; the result says of
            which. Of a module that runs more than once only the first call is compared.
        rtol: The largest error allowed, as a part of the largest absolute recorded value. None:
            1e-5, or what suits the model's dtype (1e-10 for float64).

    Returns:
        The largest absolute and relative error of each; true if all agree.

    Raises:
        SettingsError: there is no such module, the model's output has no such part, the model is
            lazy and has not run yet, or the record proves nothing: nothing at all was recorded, or
            model and record are only NaN or zeros.

    Example:
        >>> check = verify_port(torch.nn.Identity(), torch.ones(2), torch.ones(2))
        >>> bool(check)
        True
    """
    check_kind("verify_port: model", model, torch.nn.Module, "a torch.nn.Module")
    if layers is not None:
        check_kind("verify_port: layers", layers, Mapping, "a mapping by modules' names")
        for name in layers:
            check_kind("verify_port: a module's name in layers", name, str, "a str")
    if rtol is not None and not (is_number(rtol) and rtol >= 0):
        raise SettingsError(f"verify_port: rtol is a number, at least 0, not {shown_value(rtol)}.")
    if any(map(torch.nn.parameter.is_lazy, tensors_of(model))):
        raise SettingsError("verify_port: the model has parameters without a shape; load it first.")
    wanted = {name: _modules(model, name) for name in layers or {}}
    with alone_with(model):
        journal = Journal(model)
        journal.keep_attributes(modules_of(model))
        with journal.trial(), torch.no_grad():
            check = _checked(_Run(model, wanted, inputs), expected, layers or {}, rtol)
    check_shows_something((*check.layers, *check.outputs))
    return check


# -- running the model -----------------------------------------------------------------------------


def _modules(model: torch.nn.Module, name: str) -> torch.nn.Module:
    modules = module_names(model)
    wanted = name.replace("/", ".")
    if wanted not in modules:
        raise SettingsError(
            f"verify_port: the model has no module {name!r}.{did_you_mean(wanted, modules)}"
        )
    return modules[wanted]


class _Run:
    """What a model computes in eval mode, and its layers when they are first called.

    It leaves the model in that mode, and what it has added to listen to layers.
    """

    def __init__(
        self, model: torch.nn.Module, layers: Mapping[str, torch.nn.Module], inputs: Any
    ) -> None:
        self.seen: dict[str, Any] = {}
        with suppress(NotImplementedError):  # an exported program keeps the mode it was exported in
            model.eval()
        for name, module in layers.items():
            module.register_forward_hook(partial(self._record, name))
        arguments = _Arguments(model)
        self.output = arguments.call(inputs)
        self.casts = ", ".join(arguments.casts)

    def _record(self, name: str, _module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        self.seen.setdefault(name, _detached(output))


def _checked(run: _Run, expected: Any, layers: Mapping[str, Any], rtol: float | None) -> PortCheck:
    """What a model has computed, compared with the record."""
    compared = {
        name: list(compare(name, run.seen.get(name), record, rtol, channels_last=True))
        for name, record in layers.items()
    }
    in_order = [*run.seen, *(name for name in compared if name not in run.seen)]
    return PortCheck(
        layers=tuple(comparison for name in in_order for comparison in compared[name]),
        outputs=tuple(compare("output", run.output, expected, rtol, channels_last=False)),
        cast=run.casts,
    )


def _detached(output: Any) -> Any:
    """A copy: what follows may change a layer's output in place, as `ReLU(inplace=True)` does."""
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), output)


class _Arguments:
    """Recorded inputs as what a model takes: on its device, and floating ones in its dtype."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        state = model.state_dict().values()
        tensors = [value for value in state if isinstance(value, torch.Tensor)]  # or packed ones
        self._device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        dtypes = {t.dtype for t in tensors if t.is_floating_point()}
        self._dtype = dtypes.pop() if len(dtypes) == 1 else None  # of several nobody knows which
        self.casts: dict[str, None] = {}  # "float64 to float32"

    def call(self, inputs: Any) -> Any:
        """What the model makes of them: one, a sequence, or a mapping by keyword."""
        if isinstance(inputs, Mapping):
            return self._model(**{name: self._argument(value) for name, value in inputs.items()})
        if isinstance(inputs, list | tuple):
            return self._model(*map(self._argument, inputs))
        return self._model(self._argument(inputs))

    def _argument(self, value: Any) -> Any:
        """Flags, texts and the like go in as they are."""
        if value is None or isinstance(value, bool | str):
            return value
        tensor = as_tensor(value).to(self._device, copy=True)  # a model may work in place
        if self._dtype in (None, tensor.dtype) or not tensor.is_floating_point():
            return tensor
        assert self._dtype is not None
        self.casts[f"{dtype_name(tensor.dtype)} to {dtype_name(self._dtype)}"] = None
        return tensor.to(self._dtype)


# -- text ------------------------------------------------------------------------------------------


_COLUMNS = ("", "name", "shape", "max abs", "max rel", "allowed", "")


def _cells(kind: str, comparison: Comparison) -> tuple[str, ...]:
    shape = "" if comparison.shape is None else str(list(comparison.shape))
    errors = (_error(comparison.max_abs_error), _error(comparison.max_rel_error))
    verdict = comparison.remark if comparison.ok else f"DEPARTS {comparison.remark}".rstrip()
    return kind, comparison.name, shape, *errors, f"{comparison.tolerance:.0e}", verdict


def _error(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1e}"


def _index(comparisons: Sequence[Comparison], one: Comparison) -> int:
    return comparisons.index(one) if one in comparisons else len(comparisons)
