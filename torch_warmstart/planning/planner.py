"""Settings, a model and a checkpoint become a plan, or one error with everything that is wrong.

Nothing here reads a tensor or changes the model. Every problem of every variable is collected and
raised together, so that a user mends a set of settings in one go.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import torch

from torch_warmstart.errors import (
    MissingTensorError,
    PlanError,
    SettingsError,
    VocabularyError,
    plural,
)
from torch_warmstart.formats import Checkpoint
from torch_warmstart.formats.tensorflow import KEY as OBJECT_GRAPH_KEY
from torch_warmstart.model import Variable, absent_variables, model_variables
from torch_warmstart.names import Finder
from torch_warmstart.planning.audit import Audit, audit_port
from torch_warmstart.planning.fitting import MisfitError
from torch_warmstart.planning.losses import refuse_losses
from torch_warmstart.planning.plan import PlanItem, WarmStartPlan
from torch_warmstart.planning.planning import PROBLEM, Planning
from torch_warmstart.planning.renames import file_renames
from torch_warmstart.planning.selection import (
    Filed,
    by_variable,
    select,
    selects_parameters_only,
    spread_over_modules,
)
from torch_warmstart.planning.slot_plans import keep_whole, note_strangers, plan_slot
from torch_warmstart.planning.sources import is_there, source_of
from torch_warmstart.planning.variable_plans import plan_variable
from torch_warmstart.settings import WarmStartSettings
from torch_warmstart.slots import Optimizers, SlotFinder, slot_keys, slot_variables


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
            _plan_one(planning, variable)
            if id(variable) in selected
            else PlanItem(variable, "kept", "not selected")
        )
    keep_whole(planning)
    if optimizer is not None:
        note_strangers(planning, optimizer)
    refuse_losses(planning, absent_variables(model))
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
) -> Planning:
    variables = model_variables(model)
    if optimizer is not None:
        variables += slot_variables(optimizer, variables)
    settings = spread_over_modules(settings, variables)
    if settings.optimizer_entry is not None and (optimizer is None or checkpoint.family != "torch"):
        raise SettingsError(
            f"optimizer_entry={settings.optimizer_entry!r} is of no use without `optimizer`, or "
            "with a checkpoint that torch did not write."
        )
    planning = Planning(settings, checkpoint, variables, Finder(checkpoint, variables))
    planning.slot_finder = SlotFinder(
        planning.finder,
        variables,
        functools.partial(source_of, planning),
        settings.optimizer_entry,
    )
    return planning


def _plan_one(planning: Planning, variable: Variable) -> PlanItem:
    """A variable's item; what is wrong with it is collected."""
    if id(variable) in planning.hopeless:
        return PlanItem(variable, "kept", PROBLEM)
    plan = plan_variable if variable.slot is None else plan_slot
    try:
        return plan(planning, variable)
    except (MisfitError, SettingsError, VocabularyError, MissingTensorError) as error:
        if str(error) not in planning.problems:  # many slots share a reason
            planning.problems.append(str(error))
        advice = getattr(error, "advice", "")
        if advice and advice not in planning.advice:
            planning.advice.append(advice)
        return PlanItem(variable, "kept", PROBLEM)


# -- the settings' dicts ---------------------------------------------------------------------------


def _file_settings(planning: Planning, selected: set[int]) -> None:
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


def _check_targets(planning: Planning, selected: set[int]) -> None:
    """A rule for many variables none of which is where it says is one problem, not many."""
    by_rule: dict[int, list[tuple[Variable, Filed]]] = {}
    for variable in planning.variables:
        filed = planning.renames.get(id(variable))
        if filed is not None and not filed.entry.is_exact and id(variable) in selected:
            by_rule.setdefault(id(filed.entry.rule), []).append((variable, filed))
    for renamed in by_rule.values():
        if any(is_there(planning, variable, filed) for variable, filed in renamed):
            continue
        _, first = renamed[0]
        (name, *_), rule = first.entry.names, first.entry.rule
        near = " or ".join(map(repr, planning.finder.near(name)))
        planning.problems.append(
            f"{rule}: {planning.checkpoint.url} has nothing of what it asks for, such as {name!r} "
            f"for {first.owner.name!r}.{f' Did you mean {near}?' if near else ''}"
        )
        planning.hopeless.update(id(variable) for variable, _ in renamed)


# -- what to say besides ---------------------------------------------------------------------------


def _notes(planning: Planning, items: Sequence[PlanItem]) -> list[str]:
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


def _buffers_left_behind(planning: Planning, items: Sequence[PlanItem]) -> list[str]:
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
    layouts: dict[int, list[str]] = {}
    for item in items:
        if item.state != "kept" and item.owner:
            layouts.setdefault(id(item.owner.module), []).append(item.layout.name)
    return audit_port(model, layouts)


def _headline(planning: Planning) -> str:
    count = plural(len(planning.problems), "problem")
    return f"The warm start from {planning.checkpoint.url} has {count}; nothing was changed:"
