"""Slots of TensorFlow's optimizers: where a slot of torch's comes from, and its values.

A slot follows its variable: what an optimizer kept for each tensor that the parameter is made of,
changed as the parameter is. `step` comes from what the same optimizer counted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from torch_warmstart.formats import TensorSpec
from torch_warmstart.layouts import IDENTITY, Form, Layout
from torch_warmstart.model import Slot, Variable
from torch_warmstart.names import BY_USER, Finder, Source
from torch_warmstart.slots.saved_slots import NoSource, SlotSource, SourceOf, slot_form
from torch_warmstart.slots.steps import Power, one_of_all, product_layout, steps_layout
from torch_warmstart.slots.tensorflow import messages as say
from torch_warmstart.slots.tensorflow.index import Kept, SlotIndex
from torch_warmstart.slots.tensorflow.messages import slot_of
from torch_warmstart.slots.tensorflow.rules import (
    BERT,
    FACTORS,
    KERAS,
    LEGACY_RMSPROP,
    SCALED,
    TWO_BIASES,
    UNKNOWN_SCALE,
    Target,
    has_lr_in_it,
    remarks,
    target_of,
    without_lr,
)
from torch_warmstart.slots.torch_optimizers import PRODUCT, STEP, option_of, ran_without, torch_name
from torch_warmstart.values import frozen


@frozen
class _Missing:
    """That a slot is not there, and why."""

    problem: str


_Found = SlotSource | _Missing | NoSource


def _column(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (tensor.unsqueeze(-1),)


def _row(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (tensor.unsqueeze(-2),)


# Keras' Adafactor keeps its means without the axis that is gone; torch keeps it with size 1.
_FACTORS = {
    "row_var": Layout("as column", _column, lambda tensor: (tensor.squeeze(-1),)),
    "col_var": Layout("as row", _row, lambda tensor: (tensor.squeeze(-2),)),
}
_NUMBERS = (STEP, PRODUCT)
# A layer that is frozen on both sides.
_FROZEN = NoSource("its parameter is frozen, and the checkpoint's optimizer had none for it")


class TensorFlowSlots:
    """The slots in a checkpoint that TensorFlow wrote."""

    def __init__(self, finder: Finder, variables: Sequence[Variable], source_of: SourceOf) -> None:
        """Looks at nothing yet; the arguments are those of `TorchSlots`."""
        self._checkpoint = finder.checkpoint
        self._index = SlotIndex(finder.checkpoint)
        self._variables, self._source_of = variables, source_of
        self._not_tied: str | None = None  # the same words for all slots; "": there are none

    @property
    def has_state(self) -> bool:
        """Whether there are slots, or what may be some."""
        return self._index.has_tied or bool(self._untied)

    @functools.cached_property
    def _untied(self) -> list[str]:
        """The keys of what may be slots, whosever; nothing that a variable is made of."""
        own = (v for v in self._variables if v.slot is None)
        sources = (source for v in own if (source := self._source_of(v)) is not None)
        taken = {spec.key for source in sources for spec in source.specs}
        return [key for key in self._index.untied if key not in taken]

    def find(self, variable: Variable, parameter: Source) -> SlotSource | NoSource | None:
        """Where a slot comes from; why there can be nothing for it; or None if it is missing.

        Raises SettingsError if different tensors could be meant, or lr is 0 where it divides.
        """
        found = self._find(variable, parameter)
        return None if isinstance(found, _Missing) else found

    def explain(self, variable: Variable, parameter: Source) -> str:
        """Why a slot is missing."""
        found = self._find(variable, parameter)
        return found.problem if isinstance(found, _Missing) else ""

    def _find(self, variable: Variable, parameter: Source) -> _Found:
        slot = slot_of(variable)
        target = target_of(slot.optimizer)
        if target is None:
            return _no_target(variable)
        if slot.name not in (*target.slots, *_NUMBERS):
            return NoSource(f"TensorFlow has no counterpart of {slot.name}")
        kept = [self._kept(variable, target, spec) for spec in parameter.specs]
        missing = [one for one in kept if not isinstance(one, Kept)]
        if missing:
            return missing[0]
        return self._found(variable, parameter, target, [k for k in kept if isinstance(k, Kept)])

    def _found(
        self, variable: Variable, parameter: Source, target: Target, kept: Sequence[Kept]
    ) -> _Found:
        name = slot_of(variable).name
        if name in _NUMBERS:
            return self._number_of_all(variable, kept)
        if name in _FACTORS:
            return self._factor(variable, parameter, kept)
        return self._plain(variable, parameter, target, kept)

    def renamed(
        self, variable: Variable, parameter: Source, specs: Sequence[TensorSpec]
    ) -> SlotSource:
        """A slot from the tensors that the user named, which may be known to be scaled."""
        slot = slot_of(variable)
        kept = Kept("", "", {}, "", count=specs[0].key)
        if slot.name in _NUMBERS and specs[0].key in self._index.powers:
            power = (specs[0].key, self._index.powers[specs[0].key])
            kept = Kept("", "", {}, "", powers=(power,))
        if slot.name == STEP or (slot.name == PRODUCT and kept.powers):
            found = self._number(variable, kept)
            assert isinstance(found, SlotSource)
            return SlotSource(found.source, BY_USER)
        form = slot_form(parameter.form) if variable.shape else Form(((slot.name,),))
        meaning = self._index.meaning(specs[0].key)
        scale, notes = _scale(variable, meaning[1] if meaning else "")
        if meaning is None and slot.name == "momentum_buffer":
            notes = (UNKNOWN_SCALE.format(slot=slot.name),)
        return SlotSource(_source(specs, variable, form), BY_USER, scale, notes)

    # -- what was kept -----------------------------------------------------------------------------

    def _kept(
        self, variable: Variable, target: Target, spec: TensorSpec
    ) -> Kept | _Missing | NoSource:
        """What the one optimizer that fits kept for a tensor."""
        every = self._index.of(spec.key)
        fitting = [kept for kept in every if kept.kind in target.kinds and self._fits(kept, spec)]
        if len(fitting) > 1:
            quantities = target.slots.get(slot_of(variable).name, ())
            raise say.several_fit(variable, quantities, fitting)
        if fitting:
            return fitting[0]
        if not every and self._not_tied is None:
            self._not_tied = self._tell_untied(variable, target, spec)
        if not every and not self._not_tied and not _is_trained(variable):
            return _FROZEN
        return _Missing(
            (not every and self._not_tied) or say.nothing_fits(variable, target, spec, every)
        )

    def _tell_untied(self, variable: Variable, target: Target, spec: TensorSpec) -> str:
        """That there may be slots, and which is this one if that is known; "": there are none."""
        if not self._untied:
            return ""
        shapes = {key: self._checkpoint.spec(key).shape for key in self._untied}
        keys = sorted(self._untied, key=lambda key: shapes[key] != spec.shape)
        name = next(iter(target.slots))
        fitting = self._index.named_for(spec.key, target.slots[name], target.kinds)
        advised = [key for key in fitting if shapes.get(key) == spec.shape]
        slot = f"{slot_of(variable).parameter.name}/{name}"
        example = advised[0] if len(advised) == 1 else None
        return say.not_tied(self._checkpoint.url, keys, slot, example)

    def _fits(self, kept: Kept, spec: TensorSpec) -> bool:
        """Whether slots have the shape of their variable, or are Adafactor's factors.

        Of a table that keeps its ids a slot's table has rows for ids of its own.
        """
        tables = self._checkpoint.tables()
        of_slots = {t.values for t in tables[spec.key].slots.values()} if spec.key in tables else ()

        def is_alike(key: str) -> bool:
            shape = self._checkpoint.spec(key).shape
            return shape == spec.shape or (key in of_slots and shape[1:] == spec.shape[1:])

        return kept.kind == "Adafactor" or all(map(is_alike, kept.slots.values()))

    def _plain(
        self, variable: Variable, parameter: Source, target: Target, kept: Sequence[Kept]
    ) -> _Found:
        slot = slot_of(variable)
        quantities = [
            next((q for q in target.slots[slot.name] if q in k.slots), None) for k in kept
        ]
        if None in quantities:
            return _without(variable, kept[0], parameter.specs[0])
        keys = [k.slots[q] for k, q in zip(kept, quantities, strict=True) if q is not None]
        specs = [self._checkpoint.spec(key) for key in keys]
        scale, notes = _scale(variable, quantities[0] or "")
        is_bias = parameter.owner.leaf.startswith("bias")
        if parameter.form.layout.for_slots is not None and is_bias and _learns_both(parameter):
            notes = (*notes, TWO_BIASES)
        form = slot_form(parameter.form)
        return _from_kept(_source(specs, variable, form), variable, kept[0], scale, notes)

    def _factor(self, variable: Variable, parameter: Source, kept: Sequence[Kept]) -> _Found:
        layout, slot = parameter.form.layout.name, slot_of(variable).name
        quantity = FACTORS.get((slot, layout))
        if quantity is None or len(kept) != 1:
            return _Missing(say.other_axes(variable, parameter.specs[0], layout))
        if quantity not in kept[0].slots:
            return _without(variable, kept[0], parameter.specs[0])
        spec = self._checkpoint.spec(kept[0].slots[quantity])
        form = Form(((quantity,),), _FACTORS[slot])
        return _from_kept(_source([spec], variable, form), variable, kept[0])

    # -- numbers: step, and what follows from it ---------------------------------------------------

    def _number(self, variable: Variable, kept: Kept) -> _Found:
        slot = slot_of(variable)
        if slot.name == PRODUCT and kept.product is not None:
            spec = self._checkpoint.spec(kept.product)
            return _from_kept(_source([spec], variable, Form((("product",),))), variable, kept)
        keys, steps = self._steps(variable, kept)
        if not keys:
            return self._without_count(variable, kept)
        layout = steps
        if slot.name == PRODUCT:
            layout = product_layout(slot, steps)
        specs = [self._checkpoint.spec(key) for key in keys]
        form = Form(((STEP,),) * len(specs), layout or IDENTITY)
        return _from_kept(_source(specs, variable, form), variable, kept)

    def _number_of_all(self, variable: Variable, kept: Sequence[Kept]) -> _Found:
        """That of a parameter, whose tensors may be of several optimizers."""
        by_keys = {(one.count, one.powers, one.product): one for one in kept}
        found = [self._number(variable, one) for one in by_keys.values()]
        sources = [one.source for one in found if isinstance(one, SlotSource)]
        if len(found) == 1 or len(sources) < len(found):
            return next((one for one in found if not isinstance(one, SlotSource)), found[0])
        specs = [spec for source in sources for spec in source.specs]
        layout = one_of_all(variable.name, [source.form.layout for source in sources])
        form = Form(((STEP,),) * len(specs), layout)
        return _from_kept(_source(specs, variable, form), variable, kept[0])

    def _steps(self, variable: Variable, kept: Kept) -> tuple[list[str], Layout | None]:
        """The keys of what counted steps, and what makes the count of them, if they are not it."""
        after = self._index.global_step
        if kept.count is not None:
            return [kept.count], None
        if not kept.powers:
            return [after] if after is not None and _may_be_global(kept) else [], None
        betas = _betas(slot_of(variable))
        powers = [Power(key, betas[number - 1]) for key, number in kept.powers]
        keys = [power.key for power in powers]
        layout = steps_layout(variable.name, powers, after)
        return [*keys, after] if after is not None else keys, layout

    def _without_count(self, variable: Variable, kept: Kept) -> _Found:
        if not _is_counted(kept):
            return NoSource(f"{kept.writer}'s {kept.kind} counts no steps")
        return _Missing(say.not_counted(variable, kept))


def _is_counted(kept: Kept) -> bool:
    """Whether an optimizer goes by the number of its steps."""
    return kept.kind in ("Adam", "Adamax", "Nadam", "Adafactor") or kept.writer == BERT


def _may_be_global(kept: Kept) -> bool:
    """Whether the program's global step is an optimizer's count, where it has none of its own.

    Estimators make it that of a Keras optimizer.
    """
    return kept.writer == KERAS or _is_counted(kept)


def _is_trained(variable: Variable) -> bool:
    """Whether an optimizer of torch will take a step with a slot."""
    return slot_of(variable).parameter.tensor.requires_grad


def _no_target(variable: Variable) -> _Found:
    name = torch_name(slot_of(variable).optimizer)
    if name is None:
        return _Missing(say.unknown_optimizer(variable))
    return NoSource(f"TensorFlow has no counterpart of {name}", say.no_counterpart(name))


def _without(variable: Variable, kept: Kept, spec: TensorSpec) -> _Found:
    """A slot that the right optimizer did not keep: it ran without an option, or it was lost."""
    option = option_of(slot_of(variable).optimizer, slot_of(variable).name)
    if option is not None:
        return NoSource(ran_without(option, kept.kind))
    return _Missing(say.not_kept(variable, kept, spec))


# -- values ----------------------------------------------------------------------------------------


def _from_kept(
    source: Source,
    variable: Variable,
    kept: Kept,
    scale: float = 1.0,
    notes: tuple[str, ...] = (),
) -> SlotSource:
    more = remarks(kept.kind, kept.writer, slot_of(variable).optimizer)
    if kept.is_legacy and "mom" not in kept.slots:
        more = (LEGACY_RMSPROP,)
    if kept.is_named_otherwise:
        named = f"The checkpoint's optimizer {kept.name!r} keeps what {kept.kind} keeps."
        more = (named, *more)
    return SlotSource(source, f"{kept.writer}'s {kept.kind}", scale, (*notes, *more))


def _scale(variable: Variable, quantity: str) -> tuple[float, tuple[str, ...]]:
    if not has_lr_in_it(quantity):
        return 1.0, ()
    lr = float(slot_of(variable).group["lr"])
    if lr == 0:
        raise say.learning_rate_is_0(variable)
    return without_lr(quantity, lr), (SCALED.format(quantity="momentum", lr=lr),)


def _betas(slot: Slot) -> tuple[float, float]:
    first, second = slot.group["betas"]
    return float(first), float(second)


def _source(specs: Sequence[TensorSpec], variable: Variable, form: Form) -> Source:
    return Source(tuple(specs), variable.owners[0], form)


def _learns_both(parameter: Source) -> bool:
    """Whether both biases of a recurrent layer are trained, where TensorFlow has one."""
    owner = parameter.owner
    ih, hh = (owner.leaf.replace("_hh", "_ih"), owner.leaf.replace("_ih", "_hh"))
    both = (owner.module._parameters.get(name) for name in (ih, hh))
    return all(bias is not None and bias.requires_grad for bias in both)
