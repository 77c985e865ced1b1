"""What happens to one variable: kept, taken whole, or remapped row by row."""

from __future__ import annotations

import sys
from typing import Any

import torch

from torch_warmstart.errors import VocabularyError
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.layouts.tensorflow import absent_in_tf, is_uncounted_in_tf
from torch_warmstart.model import Variable
from torch_warmstart.names import Source
from torch_warmstart.planning.fitting import (
    MisfitError,
    check_new_rows,
    check_old_rows,
    check_other_axes,
    check_shape,
    choose_cast,
    choose_layout,
    vocab_axis,
)
from torch_warmstart.planning.plan import Cast, PlanItem, State
from torch_warmstart.planning.planning import Planning
from torch_warmstart.planning.sources import find_source, source_of
from torch_warmstart.settings import AnyVocabInfo, ClipOrPad
from torch_warmstart.vocabularies import Remapping, plan_remapping, remapping_by_position

_MISSING_ADVICE = (
    "A variable that is not in the checkpoint: name its key in var_name_to_prev_var_name "
    "(suggest_names() proposes keys), leave it out of vars_to_warm_start, or keep what the model "
    "has with on_missing='keep'."
)
_SLOT_ADVICE = (
    "An optimizer's slot that is not in the checkpoint: name its key in var_name_to_prev_var_name, "
    "leave it out of vars_to_warm_start, or let it begin anew with on_missing='keep'."
)


def plan_variable(planning: Planning, variable: Variable) -> PlanItem:
    """The item of a parameter or buffer.

    Raises MisfitError, or another of our errors, with what is wrong.
    """
    _check_target(variable)
    source, reason = find_source(planning, variable)
    if source is None:
        return plan_missing(planning, variable)
    return plan_found(planning, variable, source, reason)


def _check_target(variable: Variable) -> None:
    tensor = variable.tensor
    if torch.nn.parameter.is_lazy(tensor):
        raise MisfitError(f"{variable.name} has no shape yet: run a batch through the model first.")
    if tensor.device.type == "meta":
        raise MisfitError(
            f"{variable.name} is on the meta device and holds nothing to warm-start: call "
            "model.to_empty(device=...) first, and initialise what the checkpoint does not have."
        )
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        raise MisfitError(
            f"{variable.name} is a DTensor: sharded parameters are not supported yet. Warm-start "
            "the model before it is sharded."
        )


def plan_missing(
    planning: Planning, variable: Variable, reason: str = "", explanation: str = ""
) -> PlanItem:
    """A variable that the checkpoint does not have: kept, if it may be, or there is a reason."""
    owner = variable.owners[0]
    advice = _MISSING_ADVICE if variable.slot is None else _SLOT_ADVICE
    keeps = planning.settings.on_missing == "keep" and id(variable) not in planning.vocabs
    if is_uncounted_in_tf(owner.module, owner.leaf):
        reason = "TensorFlow has no counterpart"
    elif _is_made_without(planning, variable):
        reason = f"TensorFlow's layer has none: {absent_in_tf(owner.module, owner.leaf):g}"
    elif keeps and not reason:
        reason = "not in the checkpoint"
    elif explanation:
        raise MisfitError(explanation, advice)
    elif not reason:
        near = planning.finder.nearest(variable)
        hint = f" Nearest: {', '.join(repr(key) for key in near)}." if near else ""
        raise MisfitError(f"{' = '.join(variable.names)} is not in the checkpoint.{hint}", advice)
    planning.missing.append(variable.name)
    return PlanItem(variable, "kept", reason)


def _is_made_without(planning: Planning, variable: Variable) -> bool:
    """Whether a norm of TensorFlow's has no such tensor (`scale=False`), and torch's does nothing.

    Its other tensors are there, and what the model holds is what a layer without it computes.
    """
    owner = variable.owners[0]
    value = absent_in_tf(owner.module, owner.leaf)
    if value is None or planning.checkpoint.family != "tensorflow" or variable.slot is not None:
        return False
    siblings = [v for v in planning.variables if v is not variable and v.slot is None]
    near = [v for v in siblings if any(o.module is owner.module for o in v.owners)]
    is_there = any(source_of(planning, sibling) is not None for sibling in near)
    return is_there and bool((variable.tensor == value).all())


def plan_found(planning: Planning, variable: Variable, source: Source, reason: str) -> PlanItem:
    """The item of a variable whose tensors are known; raises MisfitError if they do not fit."""
    filed = planning.layouts.get(id(variable))
    source = choose_layout(variable, source, filed.entry if filed else None)
    vocab = planning.vocabs.get(id(variable))
    if vocab is not None:
        return plan_remapped(planning, variable, source, vocab.entry, reason)
    try:
        check_shape(variable, source)
        cast = choose_cast(variable, source)
    except MisfitError:
        if planning.settings.on_mismatch == "error":
            raise
        planning.mismatched.append((variable.name, source.specs[0].shape, variable.shape))
        reason = "shape or dtype does not fit"
        return PlanItem(variable, "kept", reason, source.specs, source.owner)
    return _make_item(variable, source, reason, _state(source, cast), cast)


def _make_item(
    variable: Variable, source: Source, reason: str, state: State, cast: Cast | None, **more: Any
) -> PlanItem:
    form = source.form
    return PlanItem(
        variable, state, reason, source.specs, source.owner, form.layout, form.part, cast, **more
    )


def _state(source: Source, cast: Cast | None) -> State:
    if source.form.layout is not IDENTITY or cast is not None:
        return "converted"
    same = source.specs[0].key.replace("/", ".") == source.owner.name.replace("/", ".")
    return "copied" if same else "renamed"


# -- remapped --------------------------------------------------------------------------------------


def plan_remapped(
    planning: Planning, variable: Variable, source: Source, info: AnyVocabInfo, reason: str
) -> PlanItem:
    """The item of a variable whose rows move; raises MisfitError if they cannot."""
    axis = vocab_axis(variable, info)
    old_size = check_other_axes(variable, source, axis)
    cast = choose_cast(variable, source)
    try:
        remapping = _remapping(planning, variable, info, axis, old_size)
    except VocabularyError as error:
        raise MisfitError(f"{variable.name}: {error}") from error
    check_new_rows(variable, remapping, axis)
    check_old_rows(variable, source, remapping, axis, old_size)
    return _make_item(
        variable,
        source,
        reason,
        "remapped",
        cast,
        vocab=info,
        remapping=remapping,
        axis=axis,
        old_rows_unused=max(0, old_size - remapping.num_old - remapping.num_oov_copied),
    )


def _remapping(
    planning: Planning, variable: Variable, info: AnyVocabInfo, axis: int, old_size: int
) -> Remapping:
    """The remapping of a VocabInfo; variables with the same vocabularies share one."""
    device = variable.device
    if isinstance(info, ClipOrPad):
        return remapping_by_position(variable.shape[axis], old_size, device)
    key = (
        *(v if isinstance(v, str) else id(v) for v in (info.new_vocab, info.old_vocab)),
        *(info.new_vocab_size, info.old_vocab_size),
        *(info.num_oov_buckets, info.old_num_oov_buckets, device),
    )
    if key not in planning.remappings:
        planning.remappings[key] = plan_remapping(info, device, planning.settings.storage)
    return planning.remappings[key]
