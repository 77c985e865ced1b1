"""Settings, a model and a checkpoint become a plan, or one error with everything that is wrong.

Nothing here reads a tensor or changes the model. Each step takes values and returns values; what is
wrong is collected on the way and raised together, so that a set of settings is mended in one go.

    variables ─► wishes ─► located ─► names ─► decisions ─► losses ─► plan, or PlanError
"""

from __future__ import annotations

import functools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from torch_warmstart.errors import Finding, PlanError, SettingsError, Severity
from torch_warmstart.formats import OBJECT_GRAPH_KEY, Checkpoint, is_extra_state
from torch_warmstart.model import Outline, Variable, model_variables
from torch_warmstart.names import Finder, Renamed, Source, conventions_of
from torch_warmstart.planning.checks import (
    Beside,
    find_adapters,
    find_beside,
    find_compiled_in,
    find_half_changed,
    find_left_by_position,
    find_lost,
    find_shuffled,
    notes_on_meta,
    say_lost,
    with_makers,
)
from torch_warmstart.planning.deciding import Decision, decide_each, decide_variable
from torch_warmstart.planning.locating import (
    Located,
    find_counted_otherwise,
    find_idle_rules,
    find_made_by_others,
    find_missing_rule,
    locate,
)
from torch_warmstart.planning.name_notes import notes_on_names
from torch_warmstart.planning.notes import audits_of, notes_on
from torch_warmstart.planning.plan import WORDS, PlanItem, Purpose, WarmStartPlan
from torch_warmstart.planning.rows import OldVocabularies, Remappings
from torch_warmstart.planning.selection import written_out
from torch_warmstart.planning.wishes import Wishes, read_wishes
from torch_warmstart.settings import WarmStartSettings
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.slots import Optimizers


def make_plan(
    model: torch.nn.Module,
    settings: WarmStartSettings,
    checkpoint: Checkpoint,
    optimizer: Optimizers | None = None,
    *,
    variables: tuple[Variable, ...] | None = None,
    leave_out: Collection[Variable] = (),
    is_older: bool = False,
    purpose: Purpose = "warm start",
) -> WarmStartPlan:
    """Plans a warm start; raises PlanError with every problem there is.

    Args:
        model: The model to fill.
        settings: What is asked for.
        checkpoint: Where it comes from.
        optimizer: The model's.
        variables: Those of `all_variables`, where plans of several checkpoints are to share them.
        leave_out: Variables that are another's, whatever the settings say.
        is_older: Whether only what is back comes from the checkpoint.
        purpose: What it is for, and is said to be.
    """
    started = time.perf_counter()
    variables = variables or all_variables(model, optimizer)
    wishes = read_wishes(written_out(settings, variables), variables).without(leave_out)
    _check_optimizer_entry(settings, checkpoint, optimizer)
    located = _located(wishes, checkpoint, variables, model)
    names = _judge_names(wishes, located)
    old = OldVocabularies(checkpoint, wishes.settings.storage, is_older)
    decisions, of_slots = _decide(wishes, located, optimizer, names.explained, old)
    rows = _judge_rows(decisions, old)
    losses = _judge_losses(model, wishes, located, decisions)
    problems = [*wishes.problems, *names.problems, *losses.problems, *rows.problems]
    if problems:
        raise PlanError.of(f"{WORDS[purpose].as_subject} {checkpoint.url}", problems)
    items = with_makers([decision.item for decision in decisions.values()])
    of_items = _notes_on(model, wishes, located, items)
    notes = [*names.notes, *of_items, *of_slots, *losses.notes, *rows.notes]
    return WarmStartPlan(
        model=model,
        checkpoint=checkpoint,
        settings=wishes.settings,
        items=items,
        unused_keys=_unused_keys(checkpoint, items, with_slots=optimizer is not None),
        missing=tuple(d.item.name for d in decisions.values() if d.is_missing),
        mismatched=tuple(d.mismatch for d in decisions.values() if d.mismatch is not None),
        notes=tuple({note.text: note for note in [*notes, *_extra_states(checkpoint)]}.values()),
        audits=audits_of(model, items, located.finder),
        seconds=time.perf_counter() - started,
        outlines=_outlines(variables),
        purpose=purpose,
    )


def _outlines(variables: Iterable[Variable]) -> dict[Variable, Outline]:
    """Of each variable; most of a large model have one of few, which is kept once."""
    known: dict[Outline, Outline] = {}
    found = ((variable, variable.outline) for variable in variables)
    return {variable: known.setdefault(outline, outline) for variable, outline in found}


def _located(
    wishes: Wishes, checkpoint: Checkpoint, variables: tuple[Variable, ...], model: torch.nn.Module
) -> Located:
    renamed = frozenset(wish.variable for wish in wishes.values() if wish.rename is not None)
    by_others = _renamed_by_others(model, checkpoint)
    return locate(wishes, Finder(checkpoint, variables, renamed), by_others)


def _renamed_by_others(model: torch.nn.Module, checkpoint: Checkpoint) -> Iterator[Renamed]:
    """Names that others make of the checkpoint's keys, each worked out when it is asked for."""
    from torch_warmstart.names import names_after_hooks, names_in_transformers

    yield names_after_hooks(model, checkpoint)
    yield names_in_transformers(model, checkpoint)


def all_variables(model: torch.nn.Module, optimizer: Optimizers | None) -> tuple[Variable, ...]:
    """The model's variables, and behind them the optimizers' slots."""
    variables = model_variables(model)
    on_meta = next((v for v in variables if v.tensor.is_meta), None)
    if on_meta is not None and optimizer is not None:
        raise SettingsError(
            f"{on_meta.name} is on the meta device, and a warm start makes such parameters anew: "
            "the optimizer would keep the old ones. Make it from model.parameters() behind the "
            "warm start; the same once more, with optimizer=, gives it its state."
        )
    if optimizer is None:
        return variables
    from torch_warmstart.slots import slot_variables

    return variables + slot_variables(optimizer, variables, model)


def _check_optimizer_entry(
    settings: WarmStartSettings, checkpoint: Checkpoint, optimizer: Optimizers | None
) -> None:
    has_entries = conventions_of(checkpoint).has_optimizer_entries
    if settings.optimizer_entry is not None and (optimizer is None or not has_entries):
        raise SettingsError(
            f"optimizer_entry={settings.optimizer_entry!r} is of no use without `optimizer`, or "
            "with a checkpoint that torch did not write."
        )


@frozen
class _Judgement:
    """What is wrong after a step, and what is only worth saying."""

    problems: Sequence[Finding] = ()
    notes: Sequence[Finding] = ()
    explained: frozenset[Variable] = (
        frozenset()
    )  # by a problem here, so they need none of their own


def _judge_names(wishes: Wishes, located: Located) -> _Judgement:
    """One finding where one rule is at fault for many variables."""
    missing = {
        **find_counted_otherwise(wishes, located),
        **find_missing_rule(wishes, located),
        **find_made_by_others(wishes, located),
    }
    idle = find_idle_rules(wishes, located)
    wrong = {**idle, **{f: who for f, who in missing.items() if f.severity == "error"}}
    return _Judgement(list(wrong), list(missing), frozenset().union(*wrong.values()))


def _decide(
    wishes: Wishes,
    located: Located,
    optimizer: Optimizers | None,
    explained: frozenset[Variable],
    old: OldVocabularies,
) -> tuple[dict[Variable, Decision], list[Finding]]:
    """What happens to each variable, slots last; and what there is to say about the slots."""
    infos = (info for wish in wishes.values() for info in wish.infos)
    remappings = Remappings(old, infos, wishes)
    on_variable = functools.partial(
        decide_variable, located=located, idle=explained, remappings=remappings
    )
    of_model = decide_each((w for v, w in wishes.items() if v.slot is None), on_variable)
    if optimizer is None and all(variable.slot is None for variable in wishes):
        return of_model, []
    from torch_warmstart.planning.slots import decide_slots

    of_slots, remarks = decide_slots(wishes, of_model, located, optimizer, remappings)
    return {**of_model, **of_slots}, remarks


def _judge_rows(decisions: Mapping[Variable, Decision], old: OldVocabularies) -> _Judgement:
    """What is wrong with rows that are taken by their positions."""
    items = [decision.item for decision in decisions.values()]
    found = [*find_shuffled(items, old), *find_half_changed(items), *find_left_by_position(items)]
    return _Judgement(_only(found, "error"), found)


def _judge_losses(
    model: torch.nn.Module,
    wishes: Wishes,
    located: Located,
    decisions: Mapping[Variable, Decision],
) -> _Judgement:
    """What is wrong with the decisions, and what would be lost by them."""
    from torch_warmstart.planning.checks import find_altered

    lost = find_lost(model, wishes.settings, located)
    altered, losses = find_altered(wishes, decisions, located)
    beside = _beside(wishes, _without(decisions, altered), located, lost)
    told = altered | frozenset(each.variable for each in beside)
    adapted, of_adapters = find_adapters(wishes, decisions, located, told)
    as_found = _without(decisions, altered | adapted)
    may_be_lost = wishes.settings.on_mismatch == "keep"
    losses += [*say_lost(wishes.settings, lost), *of_adapters]
    losses += [finding for each in beside for finding in each.findings(may_be_lost=may_be_lost)]
    problems = [d.problem for d in as_found.values() if d.problem is not None]
    return _Judgement([*problems, *_only(losses, "error")], losses)


def _beside(
    wishes: Wishes,
    decisions: Mapping[Variable, Decision],
    located: Located,
    lost: Iterable[tuple[Variable, Source]],
) -> list[Beside]:
    """The tensors beside those that are taken."""
    taken = [
        variable
        for variable, decision in decisions.items()
        if variable.slot is None and decision.item.state != "kept" and not wishes[variable].layout
    ]
    return find_beside(taken, located, [source for _, source in lost])


def _without(
    decisions: Mapping[Variable, Decision], variables: Collection[Variable]
) -> dict[Variable, Decision]:
    return {v: decision for v, decision in decisions.items() if v not in variables}


def _only(findings: Iterable[Finding], severity: Severity) -> list[Finding]:
    return [finding for finding in findings if finding.severity == severity]


def _notes_on(
    model: torch.nn.Module, wishes: Wishes, located: Located, items: tuple[PlanItem, ...]
) -> list[Finding]:
    """What is worth saying of what is taken and kept."""
    laid_out = [wish.variable for wish in wishes.values() if wish.layout is not None]
    of_model = notes_on(wishes.settings, items, located, laid_out)
    of_whole = [*notes_on_meta(model, items), *find_compiled_in()]
    return [*notes_on_names(items, located), *of_model, *of_whole]


def _unused_keys(
    checkpoint: Checkpoint, items: Iterable[PlanItem], *, with_slots: bool
) -> tuple[str, ...]:
    """The checkpoint's keys that no item takes, by that or another name: tied weights have two."""
    specs = [spec for item in items for spec in (*item.sources, *item.copies)]
    used = {spec.key for spec in specs}
    storages = {spec.storage for spec in specs} - {None}
    keys = [key for key in checkpoint if key != OBJECT_GRAPH_KEY]
    slots: Sequence[str] = []
    if with_slots:
        from torch_warmstart.slots import slot_keys

        slots = slot_keys(checkpoint.optimizer_states())
    listed = dict.fromkeys([*keys, *slots, *checkpoint.extra_states()])
    left = [key for key in listed if key not in used]
    if not storages:
        return tuple(left)
    there = set(keys)
    return tuple(k for k in left if k not in there or checkpoint.spec(k).storage not in storages)


def _extra_states(checkpoint: Checkpoint) -> list[Finding]:
    """What modules keep beside their tensors: nobody else knows what it is."""
    kept = (key for key in checkpoint if is_extra_state(key))
    keys = tuple(dict.fromkeys([*checkpoint.extra_states(), *kept]))
    if not keys:
        return []
    text = (
        f"{keys[0]}{f' and {len(keys) - 1} more' if keys[1:] else ''} of {checkpoint.url}: what a "
        "module keeps beside its tensors is not taken."
    )
    hint = "Call the module's set_extra_state() with it."
    return [Finding("extra-state-left", "note", keys[0], f"{text} {hint}", hint)]
