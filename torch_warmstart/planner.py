"""Settings, a model and a checkpoint become a plan, or one error with everything that is wrong.

Nothing here reads a tensor or changes the model. Every problem of every variable is collected and
raised together, so that a user mends a set of settings in one go.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_warmstart.errors import (
    MissingTensorError,
    PlanError,
    SettingsError,
    VocabularyError,
    plural,
)
from torch_warmstart.fitting import (
    MisfitError,
    check_new_rows,
    check_old_rows,
    check_other_axes,
    check_shape,
    choose_cast,
    choose_layout,
    vocab_axis,
)
from torch_warmstart.formats.base import Checkpoint, TensorSpec
from torch_warmstart.formats.object_graph import KEY as OBJECT_GRAPH_KEY
from torch_warmstart.layouts import IDENTITY, Layout
from torch_warmstart.names import Source, find_renamed, find_source, nearest_keys
from torch_warmstart.plan import Cast, PlanItem, State, WarmStartPlan
from torch_warmstart.remapping import Remapping, plan_remapping
from torch_warmstart.selection import Filed, by_variable, select, selects_parameters_only
from torch_warmstart.settings import VocabInfo, WarmStartSettings
from torch_warmstart.tf_layers import is_uncounted_in_tf
from torch_warmstart.variables import Owner, Variable, model_variables

_BY_USER = "renamed in settings"
_BY_TF_NAME = "TensorFlow's name"
_MISSING_ADVICE = (
    "A variable that is not in the checkpoint: name its key in var_name_to_prev_var_name, leave it "
    "out of vars_to_warm_start, or keep what the model has with on_missing='keep'."
)


@dataclass(slots=True)
class _Planning:
    """One planning: what is known, and what has been found wrong so far."""

    settings: WarmStartSettings
    checkpoint: Checkpoint
    variables: tuple[Variable, ...]
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    # The three dicts of the settings, by id of the variable.
    vocabs: dict[int, Filed] = field(default_factory=dict)
    renames: dict[int, Filed] = field(default_factory=dict)
    layouts: dict[int, Filed] = field(default_factory=dict)
    remappings: dict[tuple[Any, ...], Remapping] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Match:
    """A variable, the tensor found for it, and how that tensor becomes the variable."""

    variable: Variable
    spec: TensorSpec
    owner: Owner  # of the variable, under whose name the tensor was found
    layout: Layout
    reason: str


def make_plan(
    model: torch.nn.Module, settings: WarmStartSettings, checkpoint: Checkpoint
) -> WarmStartPlan:
    """Plans a warm start; raises PlanError with every problem there is."""
    started = time.perf_counter()
    planning = _Planning(settings, checkpoint, model_variables(model))
    chosen, problems = select(settings, planning.variables)
    planning.problems += problems
    selected = {id(variable) for variable in chosen}
    _file_settings(planning, selected)
    items = [
        _plan_variable(planning, v) if id(v) in selected else PlanItem(v, "kept", "not selected")
        for v in planning.variables
    ]
    if planning.problems:
        raise PlanError(_headline(planning), planning.problems, planning.advice)
    used = {item.source.key for item in items if item.source}
    return WarmStartPlan(
        model=model,
        checkpoint=checkpoint,
        settings=settings,
        items=tuple(items),
        unused_keys=tuple(k for k in checkpoint if k not in used and k != OBJECT_GRAPH_KEY),
        missing=tuple(planning.missing),
        mismatched=tuple(planning.mismatched),
        notes=tuple(_notes(planning, items)),
        seconds=time.perf_counter() - started,
    )


def _file_settings(planning: _Planning, selected: set[int]) -> None:
    """Every entry of the dicts must be used: a misspelt one would silently do nothing."""
    settings, variables = planning.settings, planning.variables
    renamable = selected
    if settings.vars_to_warm_start is None:  # TensorFlow then counts a rename of any as used
        renamable = {id(variable) for variable in variables}
    for setting, usable, filed in (
        ("var_name_to_vocab_info", selected, planning.vocabs),
        ("var_name_to_prev_var_name", renamable, planning.renames),
        ("var_name_to_layout", selected, planning.layouts),
    ):
        entries, problems = by_variable(getattr(settings, setting), setting, variables, usable)
        filed.update(entries)
        planning.problems += problems


# -- one variable ----------------------------------------------------------------------------------


def _plan_variable(planning: _Planning, variable: Variable) -> PlanItem:
    try:
        _check_target(variable)
        source, reason = _find(planning, variable)
        if source is None:
            return _plan_missing(planning, variable)
        return _plan_found(planning, variable, source, reason)
    except (MisfitError, SettingsError, VocabularyError, MissingTensorError) as error:
        planning.problems.append(str(error))
        advice = getattr(error, "advice", "")
        if advice and advice not in planning.advice:
            planning.advice.append(advice)
        return PlanItem(variable, "kept", "problem")  # never shown: the plan will not be made


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


def _find(planning: _Planning, variable: Variable) -> tuple[Source | None, str]:
    renamed = planning.renames.get(id(variable))
    if renamed is not None:
        return find_renamed(renamed.owner, renamed.entry, planning.checkpoint), _BY_USER
    source = find_source(variable, planning.checkpoint)
    if source is None or source.spec.key.replace("/", ".") in variable.names:
        return source, ""
    return source, _BY_TF_NAME if planning.checkpoint.family == "tensorflow" else ""


def _plan_missing(planning: _Planning, variable: Variable) -> PlanItem:
    owner = variable.owners[0]
    keeps = planning.settings.on_missing == "keep" and id(variable) not in planning.vocabs
    if is_uncounted_in_tf(owner.module, owner.leaf):
        reason = "TensorFlow has no counterpart"
    elif keeps:
        reason = "not in the checkpoint"
    else:
        near = nearest_keys(variable, planning.checkpoint)
        hint = f" Nearest: {', '.join(repr(key) for key in near)}." if near else ""
        raise MisfitError(
            f"{' = '.join(variable.names)} is not in the checkpoint.{hint}", _MISSING_ADVICE
        )
    planning.missing.append(variable.name)
    return PlanItem(variable, "kept", reason)


def _plan_found(planning: _Planning, variable: Variable, source: Source, reason: str) -> PlanItem:
    spec, owner = source.spec, source.owner
    filed = planning.layouts.get(id(variable))
    by_user = filed.entry if filed else None
    layout = choose_layout(variable, owner, spec, planning.checkpoint.family, by_user)
    match = _Match(variable, spec, owner, layout, reason)
    vocab = planning.vocabs.get(id(variable))
    if vocab is not None:
        return _plan_remapped(planning, match, vocab.entry)
    try:
        check_shape(variable, spec, layout)
        cast = choose_cast(variable, spec)
    except MisfitError:
        if planning.settings.on_mismatch == "error":
            raise
        planning.mismatched.append((variable.name, spec.shape, variable.shape))
        return PlanItem(variable, "kept", "shape or dtype does not fit", spec, owner)
    return PlanItem(variable, _state(match, cast), reason, spec, owner, layout, cast)


def _state(match: _Match, cast: Cast | None) -> State:
    if match.layout is not IDENTITY or cast is not None:
        return "converted"
    same = match.spec.key.replace("/", ".") == match.owner.name.replace("/", ".")
    return "copied" if same else "renamed"


# -- one remapped variable -------------------------------------------------------------------------


def _plan_remapped(planning: _Planning, match: _Match, info: VocabInfo) -> PlanItem:
    variable, spec = match.variable, match.spec
    axis = vocab_axis(variable, info)
    old_size = check_other_axes(variable, spec, match.layout, axis)
    cast = choose_cast(variable, spec)
    try:
        remapping = _remapping(planning, variable, info)
    except VocabularyError as error:
        raise MisfitError(f"{variable.name}: {error}") from error
    check_new_rows(variable, remapping, axis)
    check_old_rows(variable, spec, remapping, axis, old_size)
    return PlanItem(
        variable=variable,
        state="remapped",
        reason=match.reason,
        source=spec,
        owner=match.owner,
        layout=match.layout,
        cast=cast,
        vocab=info,
        remapping=remapping,
        axis=axis,
        old_rows_unused=max(0, old_size - remapping.num_old - remapping.num_oov_copied),
    )


def _remapping(planning: _Planning, variable: Variable, info: VocabInfo) -> Remapping:
    """The remapping of a VocabInfo; variables with the same vocabularies share one."""
    device = variable.tensor.device
    key = (
        *(v if isinstance(v, str) else id(v) for v in (info.new_vocab, info.old_vocab)),
        *(info.new_vocab_size, info.old_vocab_size),
        *(info.num_oov_buckets, info.old_num_oov_buckets, device),
    )
    if key not in planning.remappings:
        planning.remappings[key] = plan_remapping(info, device, planning.settings.storage)
    return planning.remappings[key]


# -- what to say besides ---------------------------------------------------------------------------


def _notes(planning: _Planning, items: list[PlanItem]) -> list[str]:
    notes = []
    left = _buffers_left_behind(planning, items)
    if left:
        notes.append(
            f"{plural(len(left), 'buffer')} that the checkpoint has (such as {left[0]!r}) stay as "
            "they are, because a pattern given as a str selects parameters only. To take them too, "
            f"write a list: vars_to_warm_start=[{planning.settings.vars_to_warm_start!r}]."
        )
    lossy = [item.name for item in items if item.cast is not None and item.cast.lossy]
    if lossy:
        notes.append(
            f"{plural(len(lossy), 'variable')} (such as {lossy[0]!r}) lose precision or range: the "
            "model's dtype is narrower than the checkpoint's."
        )
    return notes


def _buffers_left_behind(planning: _Planning, items: list[PlanItem]) -> list[str]:
    """Unselected buffers the checkpoint has: in TensorFlow a silent loss of accuracy."""
    if not selects_parameters_only(planning.settings):
        return []
    buffers = [item.variable for item in items if item.variable.kind == "buffer"]
    return [buffer.name for buffer in buffers if _is_in(planning.checkpoint, buffer)]


def _is_in(checkpoint: Checkpoint, variable: Variable) -> bool:
    try:
        return find_source(variable, checkpoint) is not None
    except SettingsError:  # there, and more than once
        return True


def _headline(planning: _Planning) -> str:
    count = plural(len(planning.problems), "problem")
    return f"The warm start from {planning.checkpoint.url} has {count}; nothing was changed:"
