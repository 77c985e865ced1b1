"""Settings, a model and a checkpoint become a plan, or one error with everything that is wrong.

Nothing here reads a tensor or changes the model. Every problem of every variable is collected and
raised together, so that a user mends a set of settings in one go.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from torch_warmstart.errors import (
    MissingTensorError,
    PlanError,
    SettingsError,
    UnsupportedError,
    VocabularyError,
    did_you_mean,
    plural,
)
from torch_warmstart.formats.base import Checkpoint, TensorSpec
from torch_warmstart.formats.object_graph import KEY as OBJECT_GRAPH_KEY
from torch_warmstart.layouts import IDENTITY, Layout, find_layout
from torch_warmstart.names import Source, find_renamed, find_source, nearest_keys
from torch_warmstart.plan import Cast, PlanItem, State, WarmStartPlan
from torch_warmstart.remapping import Remapping, plan_remapping
from torch_warmstart.selection import select, selects_parameters_only
from torch_warmstart.settings import VocabInfo, WarmStartSettings
from torch_warmstart.tf_layers import is_uncounted_in_tf, tf_layout
from torch_warmstart.variables import Owner, Variable, find_variable, model_variables

Value = TypeVar("Value")
_BY_USER = "renamed by var_name_to_prev_var_name"
_BY_TF_NAME = "TensorFlow's name for it"


class _Problem(Exception):
    """What is wrong with one variable; collected, never seen by users."""


@dataclass(slots=True)
class _Planner:
    """The state of one planning: what is known, and what has been found wrong so far."""

    settings: WarmStartSettings
    checkpoint: Checkpoint
    variables: tuple[Variable, ...]
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    vocabs: dict[int, VocabInfo] = field(default_factory=dict)  # by id of the variable
    renames: dict[int, tuple[Owner, str]] = field(default_factory=dict)
    layouts: dict[int, str] = field(default_factory=dict)
    remappings: dict[tuple[Any, ...], Remapping] = field(default_factory=dict)


def make_plan(
    model: torch.nn.Module, settings: WarmStartSettings, checkpoint: Checkpoint
) -> WarmStartPlan:
    """Plans a warm start; raises PlanError with every problem there is."""
    planner = _Planner(settings, checkpoint, model_variables(model))
    chosen, problems = select(settings, planner.variables)
    planner.problems += problems
    _assign_settings(planner, chosen)
    selected = {id(variable) for variable in chosen}
    items = [
        _plan_variable(planner, v) if id(v) in selected else _not_selected(v)
        for v in planner.variables
    ]
    if planner.problems:
        raise PlanError(_headline(planner), planner.problems)
    used = {item.source.key for item in items if item.source}
    return WarmStartPlan(
        model=model,
        checkpoint=checkpoint,
        settings=settings,
        items=tuple(items),
        unused_keys=tuple(k for k in checkpoint if k not in used and k != OBJECT_GRAPH_KEY),
        missing=tuple(planner.missing),
        mismatched=tuple(planner.mismatched),
        notes=tuple(_notes(planner, items)),
    )


# -- settings by variable --------------------------------------------------------------------------


def _assign_settings(planner: _Planner, chosen: list[Variable]) -> None:
    """Files the three dicts of the settings by variable; every entry must be used."""
    settings = planner.settings
    selected = {id(variable) for variable in chosen}
    if settings.vars_to_warm_start is None:  # TensorFlow: renames count as used for all of them
        renamable = {id(variable) for variable in planner.variables}
    else:
        renamable = selected
    planner.vocabs = _by_variable(
        planner, "var_name_to_vocab_info", settings.var_name_to_vocab_info, selected, lambda _, v: v
    )
    planner.renames = _by_variable(
        planner,
        "var_name_to_prev_var_name",
        settings.var_name_to_prev_var_name,
        renamable,
        lambda owner, key: (owner, key),
    )
    planner.layouts = _by_variable(
        planner, "var_name_to_layout", settings.var_name_to_layout, selected, lambda _, v: v
    )


def _by_variable(
    planner: _Planner,
    setting: str,
    mapping: Mapping[str, Any] | None,
    usable: set[int],
    value: Callable[[Owner, Any], Value],
) -> dict[int, Value]:
    filed: dict[int, Value] = {}
    spelled: dict[int, str] = {}
    for name, entry in (mapping or {}).items():
        found = find_variable(planner.variables, name)
        if found is None:
            names = [n for variable in planner.variables for n in variable.names]
            planner.problems.append(
                f"{setting}: the model has no variable {name!r}.{did_you_mean(name, names)}"
            )
            continue
        variable, owner = found
        if id(variable) not in usable:
            planner.problems.append(
                f"{setting}: {name!r} is not used, because vars_to_warm_start does not select it."
            )
        elif id(variable) in filed:
            planner.problems.append(
                f"{setting}: {spelled[id(variable)]!r} and {name!r} are the same variable."
            )
        else:
            filed[id(variable)], spelled[id(variable)] = value(owner, entry), name
    return filed


# -- one variable ----------------------------------------------------------------------------------


def _plan_variable(planner: _Planner, variable: Variable) -> PlanItem:
    try:
        _check_target(variable)
        source, reason = _find(planner, variable)
        if source is None:
            return _plan_missing(planner, variable)
        return _plan_found(planner, variable, source, reason)
    except (
        _Problem,
        SettingsError,
        UnsupportedError,
        VocabularyError,
        MissingTensorError,
    ) as error:
        planner.problems.append(str(error))
        return PlanItem(variable, "kept", "problem")


def _check_target(variable: Variable) -> None:
    tensor = variable.tensor
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        raise _Problem(f"{variable.name} has no shape yet: run a batch through the model first.")
    if tensor.device.type == "meta":
        raise _Problem(
            f"{variable.name} is on the meta device and holds nothing to warm-start: call "
            "model.to_empty(device=...) first, and initialise what the checkpoint does not have."
        )
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        raise _Problem(
            f"{variable.name} is a DTensor: sharded parameters are not supported yet. Warm-start "
            "the model before it is sharded."
        )


def _find(planner: _Planner, variable: Variable) -> tuple[Source | None, str]:
    renamed = planner.renames.get(id(variable))
    if renamed is not None:
        owner, key = renamed
        return find_renamed(owner, key, planner.checkpoint), _BY_USER
    source = find_source(variable, planner.checkpoint)
    if source is None or source.spec.key.replace("/", ".") in variable.names:
        return source, ""
    return source, _BY_TF_NAME if planner.checkpoint.family == "tensorflow" else ""


def _plan_missing(planner: _Planner, variable: Variable) -> PlanItem:
    owner = variable.owners[0]
    if is_uncounted_in_tf(owner.module, owner.leaf):
        planner.missing.append(variable.name)
        return PlanItem(variable, "kept", "TensorFlow has no counterpart")
    if planner.settings.on_missing == "keep" and id(variable) not in planner.vocabs:
        planner.missing.append(variable.name)
        return PlanItem(variable, "kept", "not in the checkpoint")
    near = nearest_keys(variable, planner.checkpoint)
    hint = f" Nearest: {', '.join(repr(key) for key in near)}." if near else ""
    raise _Problem(
        f"{' = '.join(variable.names)} is not in the checkpoint.{hint} Name its key in "
        "var_name_to_prev_var_name, leave it out of vars_to_warm_start, or keep what the model has "
        "with on_missing='keep'."
    )


def _plan_found(planner: _Planner, variable: Variable, source: Source, reason: str) -> PlanItem:
    spec, owner = source.spec, source.owner
    layout = _layout(planner, variable, owner, spec)
    info = planner.vocabs.get(id(variable))
    if info is not None:
        cast = _cast(variable, spec)
        return _plan_remapped(planner, variable, source, layout, cast, info, reason)
    misfit = _misfit(variable, spec, layout)
    if misfit is not None:
        if planner.settings.on_mismatch == "error":
            raise _Problem(misfit)
        planner.mismatched.append((variable.name, spec.shape, variable.shape))
        return PlanItem(variable, "kept", "shape or dtype does not fit", spec, owner)
    cast = _cast(variable, spec)
    state = _state(owner, spec, layout, cast)
    return PlanItem(variable, state, reason, spec, owner, layout, cast)


def _plan_remapped(
    planner: _Planner,
    variable: Variable,
    source: Source,
    layout: Layout,
    cast: Cast | None,
    info: VocabInfo,
    reason: str,
) -> PlanItem:
    axis = _axis(variable, info)
    old_shape = _shape_in_torch(variable, source.spec, layout)
    new_shape = variable.shape
    if old_shape[:axis] + old_shape[axis + 1 :] != new_shape[:axis] + new_shape[axis + 1 :]:
        raise _Problem(
            f"{variable.name}: apart from axis {axis}, which the vocabulary is for, its shape "
            f"{list(new_shape)} must equal that of {source.spec.key!r}, {list(old_shape)}."
        )
    try:
        remapping = _remapping(planner, variable, info)
    except VocabularyError as error:
        raise _Problem(f"{variable.name}: {error}") from error
    _check_rows(variable, source.spec, info, remapping, new_shape[axis], old_shape[axis], axis)
    return PlanItem(
        variable=variable,
        state="remapped",
        reason=reason,
        source=source.spec,
        owner=source.owner,
        layout=layout,
        cast=cast,
        vocab=info,
        remapping=remapping,
        axis=axis,
        old_rows_unused=old_shape[axis] - remapping.num_old - remapping.num_oov_copied,
    )


def _remapping(planner: _Planner, variable: Variable, info: VocabInfo) -> Remapping:
    """The remapping of a VocabInfo; variables with the same vocabularies share one."""
    device = variable.tensor.device
    key = (
        *(v if isinstance(v, str) else id(v) for v in (info.new_vocab, info.old_vocab)),
        *(info.new_vocab_size, info.old_vocab_size),
        *(info.num_oov_buckets, info.old_num_oov_buckets, device),
    )
    if key not in planner.remappings:
        planner.remappings[key] = plan_remapping(info, device)
    return planner.remappings[key]


def _check_rows(
    variable: Variable,
    spec: TensorSpec,
    info: VocabInfo,
    remapping: Remapping,
    new_size: int,
    old_size: int,
    axis: int,
) -> None:
    entries = len(remapping.rows) - remapping.num_oov
    if new_size != len(remapping.rows):
        raise _Problem(
            f"{variable.name} has size {new_size:,} along axis {axis}, but its VocabInfo describes "
            f"{entries:,} new entries and {plural(remapping.num_oov, 'OOV row')}: "
            f"{len(remapping.rows):,}."
        )
    if remapping.old_rows > old_size:
        raise _Problem(
            f"{variable.name}: the old vocabulary's entries reach to row {remapping.old_rows - 1:,}, "
            f"but {spec.key!r} has only {plural(old_size, 'row')} along axis {axis}. Is old_vocab "
            "the vocabulary it was trained with, and old_vocab_size right?"
        )
    if info.old_num_oov_buckets and remapping.old_rows != old_size:
        raise _Problem(
            f"{variable.name}: {remapping.num_old:,} old entries and "
            f"{plural(info.old_num_oov_buckets, 'old OOV row')} make {remapping.old_rows:,} rows, but "
            f"{spec.key!r} has {old_size:,} along axis {axis}: where its OOV rows are is unclear."
        )


def _axis(variable: Variable, info: VocabInfo) -> int:
    rank = len(variable.shape)
    if not -rank <= info.axis < rank:
        raise _Problem(
            f"{variable.name}: its VocabInfo is for axis {info.axis}, but its shape is "
            f"{list(variable.shape)}."
        )
    return info.axis % rank


# -- shapes, layouts, dtypes -----------------------------------------------------------------------


def _layout(planner: _Planner, variable: Variable, owner: Owner, spec: TensorSpec) -> Layout:
    by_user = planner.layouts.get(id(variable))
    if by_user is not None:
        try:
            return find_layout(by_user)
        except SettingsError as error:
            raise _Problem(f"var_name_to_layout: {variable.name}: {error}") from error
    if planner.checkpoint.family != "tensorflow":
        return IDENTITY
    try:
        return tf_layout(owner.module, owner.leaf)
    except UnsupportedError as error:
        raise _Problem(
            f"{variable.name} cannot be taken from {spec.key!r}: {error}, and this change is not "
            "supported yet. Leave it out of vars_to_warm_start, or if the checkpoint has it as torch "
            f"does, say so: var_name_to_layout={{{variable.name!r}: 'identity'}}."
        ) from error


def _shape_in_torch(variable: Variable, spec: TensorSpec, layout: Layout) -> tuple[int, ...]:
    if not layout.applies_to(spec.shape) or len(spec.shape) != len(variable.shape):
        raise _Problem(_shapes_differ(variable, spec, layout))
    return layout.shape_in_torch(spec.shape)


def _misfit(variable: Variable, spec: TensorSpec, layout: Layout) -> str | None:
    """Why a tensor cannot become the variable, or None."""
    try:
        if _shape_in_torch(variable, spec, layout) != variable.shape:
            return _shapes_differ(variable, spec, layout)
        _cast(variable, spec)
    except _Problem as problem:
        return str(problem)
    return None


def _shapes_differ(variable: Variable, spec: TensorSpec, layout: Layout) -> str:
    how = f" ({layout.name}d)" if layout is not IDENTITY else ""
    problem = (
        f"{variable.name} has shape {list(variable.shape)}, but {spec.key!r} in the checkpoint has "
        f"{list(spec.shape)}{how}."
    )
    if len(variable.shape) == len(spec.shape):
        old = layout.shape_in_torch(spec.shape)
        differing = [dim for dim, size in enumerate(variable.shape) if size != old[dim]]
        if len(differing) == 1:
            problem += (
                f" If a vocabulary behind axis {differing[0]} has changed, describe it by a VocabInfo "
                "in var_name_to_vocab_info."
            )
    return problem + " Otherwise leave it out, or keep what the model has with on_mismatch='keep'."


def _cast(variable: Variable, spec: TensorSpec) -> Cast | None:
    source, target = spec.dtype, variable.tensor.dtype
    if source is None:
        raise _Problem(
            f"{variable.name}: {spec.key!r} is of type {spec.stored_dtype}, which no torch tensor holds."
        )
    if source == target:
        return None
    if source.is_floating_point and target.is_floating_point:
        return Cast(source, target, lossy=not _holds_all_of(target, source))
    if _is_integer(source) and _is_integer(target) and _covers(target, source):
        return Cast(source, target, lossy=False)
    raise _Problem(
        f"{variable.name} is {target}, but {spec.key!r} in the checkpoint is {source}: only floating "
        "types are cast to each other, and integers to wider ones."
    )


def _holds_all_of(target: torch.dtype, source: torch.dtype) -> bool:
    wide, narrow = torch.finfo(target), torch.finfo(source)
    return (
        wide.eps <= narrow.eps
        and wide.max >= narrow.max
        and wide.smallest_normal * wide.eps <= narrow.smallest_normal * narrow.eps
    )


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _covers(target: torch.dtype, source: torch.dtype) -> bool:
    wide, narrow = torch.iinfo(target), torch.iinfo(source)
    return wide.min <= narrow.min and wide.max >= narrow.max


def _state(owner: Owner, spec: TensorSpec, layout: Layout, cast: Cast | None) -> State:
    if layout is not IDENTITY or cast is not None:
        return "converted"
    same = spec.key.replace("/", ".") == owner.name.replace("/", ".")
    return "copied" if same else "renamed"


# -- the rest --------------------------------------------------------------------------------------


def _not_selected(variable: Variable) -> PlanItem:
    return PlanItem(variable, "kept", "not selected")


def _notes(planner: _Planner, items: list[PlanItem]) -> list[str]:
    notes = []
    left = _buffers_left_behind(planner, items)
    if left:
        notes.append(
            f"{plural(len(left), 'buffer')} that the checkpoint has (such as {left[0]!r}) stay as they "
            "are, because a pattern given as a str selects parameters only. To take them too, write a "
            f"list: vars_to_warm_start=[{planner.settings.vars_to_warm_start!r}]."
        )
    lossy = [item.name for item in items if item.cast is not None and item.cast.lossy]
    if lossy:
        notes.append(
            f"{plural(len(lossy), 'variable')} (such as {lossy[0]!r}) lose precision or range, because "
            "the model's dtype is narrower than the checkpoint's."
        )
    return notes


def _buffers_left_behind(planner: _Planner, items: list[PlanItem]) -> list[str]:
    """Unselected buffers the checkpoint has: what TensorFlow's users lost accuracy to in silence."""
    if not selects_parameters_only(planner.settings):
        return []
    left = []
    for item in items:
        if item.variable.kind != "buffer" or item.state != "kept":
            continue
        try:
            found = find_source(item.variable, planner.checkpoint)
        except SettingsError:  # ambiguous, but there
            left.append(item.name)
        else:
            left += [item.name] if found is not None else []
    return left


def _headline(planner: _Planner) -> str:
    count = plural(len(planner.problems), "problem")
    return f"The warm start from {planner.checkpoint.url} has {count}; nothing was changed:"
