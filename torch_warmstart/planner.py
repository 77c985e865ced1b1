"""Settings, a model and a checkpoint become a plan, or one error with everything that is wrong.

Nothing here reads a tensor or changes the model. Every problem of every variable is collected and
raised together, so that a user mends a set of settings in one go.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from torch_warmstart.audit import Audit, audit_port
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
from torch_warmstart.formats.base import Checkpoint
from torch_warmstart.formats.object_graph import KEY as OBJECT_GRAPH_KEY
from torch_warmstart.layouts import IDENTITY
from torch_warmstart.names import Finder, Source
from torch_warmstart.plan import Cast, PlanItem, State, WarmStartPlan
from torch_warmstart.remapping import Remapping, plan_remapping, remapping_by_position
from torch_warmstart.renames import Renaming, file_renames
from torch_warmstart.selection import (
    Filed,
    by_variable,
    select,
    selects_parameters_only,
    spread_over_modules,
)
from torch_warmstart.settings import AnyVocabInfo, ClipOrPad, WarmStartSettings
from torch_warmstart.slot_names import SlotFinder
from torch_warmstart.slot_source import SlotSource
from torch_warmstart.slots import Optimizers, slot_variables
from torch_warmstart.tf_layers import absent_in_tf, is_uncounted_in_tf
from torch_warmstart.torch_slots import slot_keys
from torch_warmstart.variables import Shape, Variable, model_variables

_BY_USER = "renamed in settings"
_BY_TF_NAME = "TensorFlow's name"
_PROBLEM = "problem"
_MISSING_ADVICE = (
    "A variable that is not in the checkpoint: name its key in var_name_to_prev_var_name "
    "(suggest_names() proposes keys), leave it out of vars_to_warm_start, or keep what the model "
    "has with on_missing='keep'."
)


@dataclass(slots=True)
class _Planning:
    """One planning: what is known, and what has been found wrong so far."""

    settings: WarmStartSettings
    checkpoint: Checkpoint
    variables: tuple[Variable, ...]
    finder: Finder
    slot_finder: SlotFinder = field(init=False)
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, Shape, Shape]] = field(default_factory=list)
    # The three dicts of the settings, by id of the variable.
    vocabs: dict[int, Filed] = field(default_factory=dict)
    renames: dict[int, Filed] = field(default_factory=dict)
    layouts: dict[int, Filed] = field(default_factory=dict)
    remappings: dict[tuple[Any, ...], Remapping] = field(default_factory=dict)
    hopeless: set[int] = field(default_factory=set)  # ids of variables whose problem is known
    items: dict[int, PlanItem] = field(default_factory=dict)  # by id of the variable
    remarks: dict[str, None] = field(default_factory=dict)  # on optimizers, each once


def make_plan(
    model: torch.nn.Module,
    settings: WarmStartSettings,
    checkpoint: Checkpoint,
    optimizer: Optimizers | None = None,
) -> WarmStartPlan:
    """Plans a warm start; raises PlanError with every problem there is."""
    started = time.perf_counter()
    planning = _start(model, settings, checkpoint, optimizer)
    settings = planning.settings
    chosen, problems = select(settings, planning.variables)
    planning.problems += problems
    selected = {id(variable) for variable in chosen}
    _file_settings(planning, selected)
    for variable in planning.variables:
        planning.items[id(variable)] = (
            _plan_variable(planning, variable)
            if id(variable) in selected
            else PlanItem(variable, "kept", "not selected")
        )
    if planning.problems:
        raise PlanError(_headline(planning), planning.problems, planning.advice)
    items = tuple(planning.items.values())
    used = {key for item in items for key in item.keys}
    keys = [key for key in checkpoint if key != OBJECT_GRAPH_KEY]
    if optimizer is not None:
        keys += slot_keys(checkpoint.optimizer_states())
    return WarmStartPlan(
        model=model,
        checkpoint=checkpoint,
        settings=settings,
        items=items,
        unused_keys=tuple(key for key in dict.fromkeys(keys) if key not in used),
        missing=tuple(planning.missing),
        mismatched=tuple(planning.mismatched),
        notes=tuple(_notes(planning, items)),
        audits=_audits(model, checkpoint, items),
        seconds=time.perf_counter() - started,
    )


def _start(
    model: torch.nn.Module,
    settings: WarmStartSettings,
    checkpoint: Checkpoint,
    optimizer: Optimizers | None,
) -> _Planning:
    variables = model_variables(model)
    if optimizer is not None:
        variables += slot_variables(optimizer, variables)
    settings = spread_over_modules(settings, variables)
    if settings.optimizer_entry is not None and (optimizer is None or checkpoint.family != "torch"):
        raise SettingsError(
            f"optimizer_entry={settings.optimizer_entry!r} is of no use without `optimizer`, or "
            "with a checkpoint that torch did not write."
        )
    planning = _Planning(settings, checkpoint, variables, Finder(checkpoint, variables))
    planning.slot_finder = SlotFinder(
        planning.finder,
        variables,
        functools.partial(_source_of, planning),
        settings.optimizer_entry,
    )
    return planning


def _source_of(planning: _Planning, variable: Variable) -> Source | None:
    try:
        return _find(planning, variable)[0]
    except (SettingsError, MissingTensorError):  # a problem of its own, if it is selected
        return None


def _file_settings(planning: _Planning, selected: set[int]) -> None:
    """Every entry of the dicts must be used: a misspelt one would silently do nothing."""
    settings, variables = planning.settings, planning.variables
    renamable = selected
    if settings.vars_to_warm_start is None:  # TensorFlow then counts a rename of any as used
        renamable = {id(variable) for variable in variables}
    for setting, filed in (
        ("var_name_to_vocab_info", planning.vocabs),
        ("var_name_to_layout", planning.layouts),
    ):
        entries, problems = by_variable(getattr(settings, setting), setting, variables, selected)
        filed.update(entries)
        planning.problems += problems
    renames, problems = file_renames(settings.var_name_to_prev_var_name, variables, renamable)
    planning.renames.update(renames)
    planning.problems += problems
    _check_targets(planning, selected)


def _check_targets(planning: _Planning, selected: set[int]) -> None:
    """A rule for many variables none of which is where it says is one problem, not many."""
    by_rule: dict[int, list[tuple[Variable, Filed]]] = {}
    for variable in planning.variables:
        filed = planning.renames.get(id(variable))
        if filed is not None and not filed.entry.is_exact and id(variable) in selected:
            by_rule.setdefault(id(filed.entry.rule), []).append((variable, filed))
    for renamed in by_rule.values():
        if any(_is_there(planning, variable, filed) for variable, filed in renamed):
            continue
        _, first = renamed[0]
        (name, *_), rule = first.entry.names, first.entry.rule
        near = " or ".join(map(repr, planning.finder.near(name)))
        planning.problems.append(
            f"{rule}: {planning.checkpoint.url} has nothing of what it asks for, such as {name!r} "
            f"for {first.owner.name!r}.{f' Did you mean {near}?' if near else ''}"
        )
        planning.hopeless.update(id(variable) for variable, _ in renamed)


def _is_there(planning: _Planning, variable: Variable, filed: Filed) -> bool:
    try:
        _follow(planning, variable, filed)
    except MissingTensorError:
        return False
    except SettingsError:  # there, and more than once
        pass
    return True


def _follow(planning: _Planning, variable: Variable, renamed: Filed) -> Source:
    """What a rule makes of a variable, by the first of its names that is there."""
    renaming: Renaming = renamed.entry
    asked_by = renaming.rule.setting if renaming.is_exact else str(renaming.rule)
    find = functools.partial(planning.finder.find_renamed, variable, asked_by=asked_by)
    try:
        return find(renamed.owner, renaming.names)
    except MissingTensorError:
        for owner, names in renaming.others:
            with contextlib.suppress(MissingTensorError):
                return find(owner, names)
        raise


# -- one variable ----------------------------------------------------------------------------------


def _plan_variable(planning: _Planning, variable: Variable) -> PlanItem:
    if id(variable) in planning.hopeless:
        return PlanItem(variable, "kept", _PROBLEM)
    try:
        if variable.slot is not None:
            return _plan_slot(planning, variable)
        _check_target(variable)
        source, reason = _find(planning, variable)
        if source is None:
            return _plan_missing(planning, variable)
        return _plan_found(planning, variable, source, reason)
    except (MisfitError, SettingsError, VocabularyError, MissingTensorError) as error:
        if str(error) not in planning.problems:  # many slots share a reason
            planning.problems.append(str(error))
        advice = getattr(error, "advice", "")
        if advice and advice not in planning.advice:
            planning.advice.append(advice)
        return PlanItem(variable, "kept", _PROBLEM)  # never shown: the plan will not be made


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
        return _find_renamed(planning, variable, renamed), _BY_USER
    source = planning.finder.find(variable)
    if source is None or _is_named_alike(source, variable):
        return source, ""
    by_name = _BY_TF_NAME if planning.checkpoint.family == "tensorflow" else ""
    return source, source.reason or by_name


def _find_renamed(planning: _Planning, variable: Variable, renamed: Filed) -> Source | None:
    """What a rule of the user's makes of a variable; None if that may be missing, and is."""
    try:
        return _follow(planning, variable, renamed)
    except MissingTensorError:
        if renamed.entry.is_exact:
            raise
        owner = renamed.owner
        may_miss = planning.settings.on_missing == "keep" and id(variable) not in planning.vocabs
        if may_miss or is_uncounted_in_tf(owner.module, owner.leaf):
            return None
        raise


def _is_named_alike(source: Source, variable: Variable) -> bool:
    names = {name.replace("/", ".") for name in variable.names}
    return len(source.specs) == 1 and source.specs[0].key.replace("/", ".") in names


def _plan_missing(
    planning: _Planning, variable: Variable, reason: str = "", explanation: str = ""
) -> PlanItem:
    """A variable that the checkpoint does not have: kept, if it may be, or there is a reason."""
    owner = variable.owners[0]
    keeps = planning.settings.on_missing == "keep" and id(variable) not in planning.vocabs
    if is_uncounted_in_tf(owner.module, owner.leaf):
        reason = "TensorFlow has no counterpart"
    elif _is_made_without(planning, variable):
        reason = f"TensorFlow's layer has none: {absent_in_tf(owner.module, owner.leaf):g}"
    elif keeps:
        reason = "not in the checkpoint"
    elif explanation:
        raise MisfitError(explanation, _MISSING_ADVICE)
    elif not reason:
        near = planning.finder.nearest(variable)
        hint = f" Nearest: {', '.join(repr(key) for key in near)}." if near else ""
        raise MisfitError(
            f"{' = '.join(variable.names)} is not in the checkpoint.{hint}", _MISSING_ADVICE
        )
    planning.missing.append(variable.name)
    return PlanItem(variable, "kept", reason)


def _is_made_without(planning: _Planning, variable: Variable) -> bool:
    """Whether a norm of TensorFlow's has no such tensor (`scale=False`), and torch's does nothing.

    Its other tensors are there, and what the model holds is what a layer without it computes.
    """
    owner = variable.owners[0]
    value = absent_in_tf(owner.module, owner.leaf)
    if value is None or planning.checkpoint.family != "tensorflow" or variable.slot is not None:
        return False
    siblings = [v for v in planning.variables if v is not variable and v.slot is None]
    near = [v for v in siblings if any(o.module is owner.module for o in v.owners)]
    is_there = any(_source_of(planning, sibling) is not None for sibling in near)
    return is_there and bool((variable.tensor == value).all())


def _plan_found(planning: _Planning, variable: Variable, source: Source, reason: str) -> PlanItem:
    filed = planning.layouts.get(id(variable))
    source = choose_layout(variable, source, filed.entry if filed else None)
    vocab = planning.vocabs.get(id(variable))
    if vocab is not None:
        return _plan_remapped(planning, variable, source, vocab.entry, reason)
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


# -- one remapped variable -------------------------------------------------------------------------


def _plan_remapped(
    planning: _Planning, variable: Variable, source: Source, info: AnyVocabInfo, reason: str
) -> PlanItem:
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
    planning: _Planning, variable: Variable, info: AnyVocabInfo, axis: int, old_size: int
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


# -- one slot of an optimizer ----------------------------------------------------------------------


def _plan_slot(planning: _Planning, variable: Variable) -> PlanItem:
    """A slot follows its parameter: the same layout, and the same rows."""
    assert variable.slot is not None
    owner = variable.slot.parameter
    if planning.items[id(owner)].reason == _PROBLEM:  # said once is enough
        return PlanItem(variable, "kept", _PROBLEM)
    parameter, _ = _find(planning, owner)
    if parameter is None:
        return _plan_missing(planning, variable)
    found = _find_slot(planning, variable, parameter)
    if not isinstance(found, SlotSource):
        explanation = "" if found else planning.slot_finder.explain(variable, parameter)
        return _plan_missing(planning, variable, found or "", explanation)
    planning.remarks.update(dict.fromkeys(found.remarks))
    info = _vocab_of_slot(planning, variable)
    if info is None:
        item = _plan_found(planning, variable, found.source, found.reason)
    else:
        item = _plan_remapped(planning, variable, found.source, info, found.reason)
        _check_start(variable, item)
    in_torch = planning.checkpoint.family == "torch"
    if in_torch and item.state == "renamed" and _is_named_alike(parameter, owner):
        item = replace(item, state="copied")  # its key says no more than where the state is kept
    return replace(item, scale=found.scale)


def _find_slot(
    planning: _Planning, variable: Variable, parameter: Source
) -> SlotSource | str | None:
    assert variable.slot is not None
    filed = planning.layouts.get(id(variable.slot.parameter))
    parameter = choose_layout(variable.slot.parameter, parameter, filed.entry if filed else None)
    renamed = planning.renames.get(id(variable))
    if renamed is None:
        return planning.slot_finder.find(variable, parameter)
    renaming: Renaming = renamed.entry
    return planning.slot_finder.find_renamed(variable, parameter, renaming.names)


def _vocab_of_slot(planning: _Planning, variable: Variable) -> AnyVocabInfo | None:
    """The slot's own VocabInfo, or its parameter's where the slot has rows along that axis."""
    assert variable.slot is not None
    parameter = variable.slot.parameter
    filed = planning.vocabs.get(id(variable))
    if filed is not None or id(parameter) not in planning.vocabs:
        return filed.entry if filed else None
    info: AnyVocabInfo = planning.vocabs[id(parameter)].entry
    axis = vocab_axis(parameter, info)
    same_rank = len(variable.shape) == len(parameter.shape)
    if not same_rank or variable.shape[axis] != parameter.shape[axis]:
        return None
    # Rows without an old one begin as the optimizer begins them.
    return replace(info, backup_initializer=None, generator=None)


def _check_start(variable: Variable, item: PlanItem) -> None:
    slot, remapping = variable.slot, item.remapping
    assert slot is not None
    assert remapping is not None
    has_initializer = item.vocab is not None and callable(item.vocab.backup_initializer)
    if slot.start is None and remapping.num_without_old_row and not has_initializer:
        raise MisfitError(
            f"{variable.name}: nobody knows what {type(slot.optimizer).__name__} begins with for "
            f"the {plural(remapping.num_without_old_row, 'row')} that have no old row. Leave this "
            "slot out of vars_to_warm_start."
        )


# -- what to say besides ---------------------------------------------------------------------------


def _notes(planning: _Planning, items: Sequence[PlanItem]) -> list[str]:
    notes = []
    if selects_parameters_only(planning.settings) and any(v.slot for v in planning.variables):
        notes.append(
            "The optimizer's slots stay as they are, because a pattern given as a str selects "
            "parameters only. To take them too, write a list: vars_to_warm_start="
            f"[{planning.settings.vars_to_warm_start!r}]."
        )
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
    return [*notes, *planning.remarks]


def _buffers_left_behind(planning: _Planning, items: Sequence[PlanItem]) -> list[str]:
    """Unselected buffers the checkpoint has: in TensorFlow a silent loss of accuracy."""
    if not selects_parameters_only(planning.settings):
        return []
    buffers = [item.variable for item in items if item.variable.kind == "buffer"]
    return [buffer.name for buffer in buffers if _is_in(planning.finder, buffer)]


def _is_in(finder: Finder, variable: Variable) -> bool:
    try:
        return finder.find(variable) is not None
    except SettingsError:  # there, and more than once
        return True


def _audits(
    model: torch.nn.Module, checkpoint: Checkpoint, items: Sequence[PlanItem]
) -> tuple[Audit, ...]:
    """What to compare by hand, where TensorFlow's weights come into a model."""
    if checkpoint.family != "tensorflow":
        return ()
    filled = [item for item in items if item.state != "kept" and item.owner]
    modules = [item.owner.module for item in filled if item.owner]
    return audit_port(model, modules, [item.layout.name for item in filled])


def _headline(planning: _Planning) -> str:
    count = plural(len(planning.problems), "problem")
    return f"The warm start from {planning.checkpoint.url} has {count}; nothing was changed:"
