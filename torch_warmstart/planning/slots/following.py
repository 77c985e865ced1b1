"""What happens to an optimizer's slots: they follow their parameter, whole or not at all."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from torch_warmstart.errors import Finding, WarmStartError, listed, plural
from torch_warmstart.model import Slot, Variable
from torch_warmstart.names import BY_USER, Source
from torch_warmstart.new_rows import fill_of_slot
from torch_warmstart.planning.deciding import (
    Decision,
    check_writable,
    decide_each,
    decide_found,
    decide_missing,
    remapped_item,
    undecided,
    where,
)
from torch_warmstart.planning.fitting import ProblemError, choose_layout, vocab_axes
from torch_warmstart.planning.locating import Located, is_named_alike
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.rows import Remappings
from torch_warmstart.planning.wishes import Wish, Wishes
from torch_warmstart.settings import AnyVocabInfo, VocabInfo
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.formats import Checkpoint
    from torch_warmstart.slots import NoSource, Optimizers, SlotFinder, SlotSource

_AVERAGES, _STEP = {"exp_avg", "exp_avg_sq"}, "step"
_STEPS_NOT_SET = (
    "{name} gets the averages, but keeps no count of steps with its parameters: where it counts "
    "them in its param groups, set that to the checkpoint's (`group['step']`), or it corrects the "
    "bias of averages that have none."
)
_IN_GROUPS = (
    "{name} gets slots, and its steps change {kept} in its param groups, which are not touched: "
    "set that to the checkpoint's (optimizer.param_groups[0][...] = ...), or it goes on as if it "
    "began."
)
_STEPS_OF_KERNELS = (
    "FBGEMM's kernels get the averages of {parameter}, and count steps where no checkpoint of "
    "TorchRec's has them: set the checkpoint's, fused_optimizer.set_optimizer_step(n), or they "
    "correct the bias of averages that have none."
)
_PRESUMED = (
    "{name} is taken for what Adagrad keeps. TorchRec calls the first state of every optimizer "
    "'momentum1', and its files do not say which it was: LARS keeps no more than that, either. "
    "Where it was Adagrad, say so: var_name_to_prev_var_name={{{name!r}: {key!r}}}."
)
_LEAVE_OUT = "A slot that cannot follow its parameter: leave it out of vars_to_warm_start."
# What Keras 3 calls sums of gradients: in an object graph, and at the end of a name in an .h5.
_SUMS = ("/_accumulated_gradients/", "_gradient_accumulator\n")
_NOT_WHOLE = "the rest of its state is not taken"


@frozen(eq=False, slots=False)  # without slots, for the cached property
class _Known:
    """What the decisions on slots are made from."""

    wishes: Wishes
    located: Located
    finder: SlotFinder
    remappings: Remappings
    of_model: Mapping[Variable, Decision]  # on parameters

    @functools.cached_property
    def named(self) -> frozenset[Variable]:
        """The parameters of which the user named a slot."""
        renamed = (w.variable.slot for w in self.wishes.values() if w.rename and w.is_selected)
        return frozenset(slot.parameter for slot in renamed if slot is not None)


def decide_slots(
    wishes: Wishes,
    of_model: Mapping[Variable, Decision],
    located: Located,
    optimizer: Optimizers | None,
    remappings: Remappings,
) -> tuple[dict[Variable, Decision], list[Finding]]:
    """What happens to each slot, and what there is to say about them."""
    from torch_warmstart.slots import SlotFinder

    entry = wishes.settings.optimizer_entry
    finder = SlotFinder(located.finder, list(wishes), located.source, entry)
    known = _Known(wishes, located, finder, remappings, of_model)
    of_slots = (wish for wish in wishes.values() if wish.variable.slot is not None)
    decided = decide_each(of_slots, functools.partial(_decide_slot, known=known))
    whole, remarks = _keep_whole(decided)
    strangers = [] if optimizer is None else _find_strangers({**of_model, **whole}, optimizer)
    return whole, [
        *remarks,
        *_find_left_behind(decided, known),
        *_find_uncounted(whole),
        *_find_of_batches(whole, known),
        *_find_of_kernels(whole),
        *strangers,
    ]


def _decide_slot(wish: Wish, known: _Known) -> Decision:
    """A slot follows its parameter: the same layout, and the same rows.

    Raises ProblemError, or another of our errors, with what is wrong.
    """
    from torch_warmstart.slots import SlotSource

    assert wish.variable.slot is not None
    parameter = wish.variable.slot.parameter
    if known.of_model[parameter].is_open:  # said once is enough
        return undecided(wish)
    if wish.rename is None and not wish.infos and not known.finder.has_state:
        return _without_state(wish, known)
    location = where(known.wishes[parameter], known.located)
    if location.source is None:
        return decide_missing(wish, known.located)
    source = choose_layout(parameter, location.source, known.wishes[parameter].layout)
    found = _find(wish, source, known.finder)
    if isinstance(found, SlotSource):
        return _found(wish, location.source, found, known)
    if found is not None:
        return _without_source(wish, found, known)
    explanation = known.finder.explain(wish.variable, location.source)
    return _breaking(decide_missing(wish, known.located, "", explanation), explanation)


def _without_source(wish: Wish, found: NoSource, known: _Known) -> Decision:
    """A slot for which the checkpoint can have nothing."""
    from torch_warmstart.slots import needs

    decision = decide_missing(wish, known.located, found.reason)
    variable = wish.variable
    assert variable.slot is not None
    if found.warning:
        remark = Finding("optimizer-begins-anew", "warning", variable.name, found.warning)
    elif variable.slot.present and not needs(variable.slot.optimizer, variable.slot.name):
        slot, optimizer = variable.slot.name, type(variable.slot.optimizer).__name__
        text = f"{optimizer} keeps {slot!r} from steps of its own: {found.reason}."
        remark = Finding("slot-of-own-steps", "warning", variable.name, text)
    else:
        return decision
    return replace(decision, remarks=(remark,))


def _without_state(wish: Wish, known: _Known) -> Decision:
    """A slot that stays as it is because no optimizer was saved: said once, in the same words."""
    reason = "the checkpoint holds no optimizer's state"
    item = PlanItem(wish.variable, "kept", reason)
    assert wish.variable.slot is not None
    if wish.variable.slot.parameter in known.named:  # a part of its parameter's state is taken
        return _breaking(Decision(item, is_missing=True), f"{reason}.")
    others, stay = "", "those of `optimizer` stay"
    if known.named:
        others, stay = " besides those that var_name_to_prev_var_name names", "the others stay"
    text = (
        f"{known.located.finder.checkpoint.url} holds no optimizer's state, so there are no slots "
        f"to take{others}: {stay} as they are. If that is meant, leave `optimizer` out."
    )
    remark = Finding("no-optimizer-state", "warning", "optimizer", text)
    return Decision(item, is_missing=True, remarks=(remark,))


def _find(wish: Wish, parameter: Source, finder: SlotFinder) -> SlotSource | NoSource | None:
    if wish.rename is None:
        return finder.find(wish.variable, parameter)
    return finder.find_renamed(wish.variable, parameter, wish.rename.value.names)


def _found(wish: Wish, parameter: Source, found: SlotSource, known: _Known) -> Decision:
    variable = wish.variable
    assert variable.slot is not None
    check_writable(variable)
    infos = _infos_of(wish, known.wishes)
    if not infos:
        decision = decide_found(wish, found.source, found.reason, known.remappings)
    else:
        item = _remapped(variable, found, infos, parameter, known)
        _check_start(variable, item)
        decision = Decision(item)
    item = decision.item
    if item.state == "kept":
        return _breaking(decision, f"{variable.name}: {item.reason}.")
    is_entry = known.located.finder.conventions.has_optimizer_entries
    if is_entry and item.state == "renamed" and is_named_alike(parameter, variable.slot.parameter):
        item = replace(item, state="copied")  # its key says no more than where the state is kept
    remarks = [
        Finding("optimizer-goes-on-differently", "note", variable.name, remark)
        for remark in found.remarks
    ]
    if found.doubt:
        remarks.append(Finding("state-by-position", "warning", "optimizer", found.doubt))
    if found.presumed:
        remarks.append(Finding("slot-of-presumed-kind", "warning", "optimizer", found.presumed))
    return replace(decision, item=replace(item, scale=found.scale), remarks=tuple(remarks))


def _remapped(
    variable: Variable,
    found: SlotSource,
    infos: Sequence[AnyVocabInfo],
    parameter: Source,
    known: _Known,
) -> PlanItem:
    """The item of a slot whose rows move.

    Of a table that is cut into columns, a number for a row is kept once for each cut, all rows of
    the first and then those of the second.
    """
    assert variable.slot is not None
    blocks, remappings = _blocks_of(variable), known.remappings
    if blocks == 1:
        return remapped_item(
            variable,
            found.source,
            infos,
            found.reason,
            remappings,
            parameter=parameter,
            having=_rows_with_a_past(variable, found, known),
        )
    (spec,) = found.source.specs
    before = parameter.specs[0].shape[0]
    if spec.shape != (blocks * before,):
        raise ProblemError(
            "slot-of-other-cuts",
            variable,
            f"{variable.name} has {blocks} blocks of rows, one for each cut of the table into "
            f"columns, but {spec.key!r} has shape {list(spec.shape)} for {before:,} rows: of other "
            "cuts other sums are kept. Cut the table as it was cut.",
            _LEAVE_OUT,
        )
    one = replace(
        variable,
        tensor=torch.empty(variable.shape[0] // blocks, dtype=variable.tensor.dtype, device="meta"),
    )
    source = replace(found.source, specs=(replace(spec, shape=(before,)),))
    item = remapped_item(one, source, infos, found.reason, remappings, parameter=parameter)
    assert item.first is not None
    all_blocks = replace(
        item.first,
        remapping=item.first.remapping.repeated(blocks, before),
        old_size=blocks * before,
    )
    changes = (all_blocks, *item.further)
    return replace(item, variable=variable, sources=(spec,), changes=changes)


def _rows_with_a_past(variable: Variable, found: SlotSource, known: _Known) -> torch.Tensor | None:
    """Which rows of a slot's parameter have an old row, where the slot has ids of its own.

    A table of a slot may have an id that its parameter's lacks, or that a filter leaves behind. Its
    row begins anew, and so does its state.
    """
    assert variable.slot is not None
    if known.remappings.old.table_of(tuple(spec.key for spec in found.source.specs)) is None:
        return None
    changes = known.of_model[variable.slot.parameter].item.changes
    return next((c.remapping.rows >= 0 for c in changes if c.axis == 0), None)


def _blocks_of(variable: Variable) -> int:
    """How many times a slot has all rows of its parameter."""
    assert variable.slot is not None
    rows = variable.slot.parameter.shape[:1]
    return variable.shape[0] // rows[0] if _is_by_rows(variable) else 1


def _is_by_rows(variable: Variable) -> bool:
    """Whether a slot has a number, or several, for each row of its parameter."""
    assert variable.slot is not None
    shape = variable.slot.parameter.shape
    return variable.slot.is_fused and len(variable.shape) == 1 < len(shape) and shape[0] > 0


def _infos_of(wish: Wish, wishes: Wishes) -> tuple[AnyVocabInfo, ...]:
    """The slot's own, or those of its parameter along whose axes the slot has rows."""
    variable = wish.variable
    assert variable.slot is not None
    parameter = variable.slot.parameter
    infos = wishes[parameter].infos
    if wish.infos:
        _check_no_fallback(wish, infos)
    if wish.infos or not infos:
        return wish.infos
    if len(parameter.shape) > 1 and variable.shape == (parameter.tensor.numel(),):
        raise ProblemError(
            "slot-is-flat",
            variable,
            f"{variable.name} is flat, so that the rows of {parameter.name} are not rows of it: it "
            "cannot follow the vocabulary.",
            _LEAVE_OUT,
        )
    axes = _axes_of_slot(variable, vocab_axes(parameter, infos))
    if None in axes and _blocks_of(variable) > 1:
        raise ProblemError(
            "slot-of-other-cuts",
            variable,
            f"{variable.name} has a number for each row and cut of {parameter.name} into columns, "
            "and columns of it move: those of a cut are no longer what its sums are of.",
            _LEAVE_OUT,
        )
    return tuple(
        # Rows without an old one begin as the optimizer begins them.
        replace(info, axis=axis, backup_initializer=None, generator=None)
        for info, axis in zip(infos, axes, strict=True)
        if axis is not None
    )


def _check_no_fallback(wish: Wish, of_parameter: Sequence[AnyVocabInfo]) -> None:
    """Rows of a slot come from where its parameter's do, and from nowhere else."""
    known = {id(info) for info in of_parameter}
    own = (i for i in wish.infos if isinstance(i, VocabInfo) and id(i) not in known)
    if any(info.fallback for info in own):
        raise ProblemError(
            "fallback-of-slot",
            wish.variable,
            f"{wish.variable.name}: a slot's rows that are back come from where its parameter's "
            "do. Leave fallback out of its VocabInfo, or the VocabInfo: it follows its parameter.",
        )


def _axes_of_slot(variable: Variable, axes: Sequence[int]) -> tuple[int | None, ...]:
    """Which of a slot's axes are some of its parameter's; None: it has none for that.

    ProblemError where its sizes leave that open; of slots that kernels keep it is known.
    """
    from torch_warmstart.slots import axes_in_slot

    assert variable.slot is not None
    parameter = variable.slot.parameter
    if _is_by_rows(variable):
        return tuple(0 if axis == 0 else None for axis in axes)
    found = axes_in_slot(parameter.shape, variable.shape, axes, variable.slot.axes)
    if found is None:
        raise ProblemError(
            "slot-axes-unclear",
            variable,
            f"{variable.name} of shape {list(variable.shape)}: along which axis it has the rows of "
            f"{parameter.name}, {list(parameter.shape)}, or that it has them once, is not clear.",
            f"Give such a slot a VocabInfo of its own, {{{variable.name!r}: VocabInfo(...)}}, or "
            "leave it out of vars_to_warm_start.",
        )
    return found


def _check_start(variable: Variable, item: PlanItem) -> None:
    slot = variable.slot
    assert slot is not None
    for change in item.changes:
        new = change.remapping.num_without_old_row
        if new and change.fill is None:
            raise ProblemError(
                "slot-start-unknown",
                variable,
                f"{variable.name}: nobody knows what {type(slot.optimizer).__name__} begins with "
                f"for {plural(new, 'row')} without an old one.",
                _LEAVE_OUT,
            )


def _breaking(decision: Decision, why: str) -> Decision:
    """A slot that is kept, without which the rest of its parameter's state means nothing."""
    from torch_warmstart.slots import needs

    slot = decision.item.variable.slot
    assert slot is not None
    return replace(decision, breaks_state=why if needs(slot.optimizer, slot.name) else None)


# -- whole or not at all ---------------------------------------------------------------------------


def _keep_whole(
    decisions: Mapping[Variable, Decision],
) -> tuple[dict[Variable, Decision], list[Finding]]:
    """Leaves an optimizer's state for a parameter alone where it would get a part of one.

    Averages without the count of their steps, or a count without them, make steps of many times
    the learning rate. What an option adds, and what the user named, is taken or kept by itself.
    """
    broken: dict[Variable, str] = {}
    for variable, decision in decisions.items():
        if decision.breaks_state is not None and variable.slot is not None:
            broken.setdefault(variable.slot.parameter, decision.breaks_state)
    whole = {v: _whole(decision, broken) for v, decision in decisions.items()}
    whole.update(_rows_together(whole))
    remarks = [remark for decision in whole.values() for remark in decision.remarks]
    return whole, [*_not_whole(whole, broken), *remarks]


def _rows_together(decisions: Mapping[Variable, Decision]) -> Iterator[tuple[Variable, Decision]]:
    """Slots of tables with ids of their own: a row that one of a parameter's lacks, none takes.

    A first average without the second makes a step of many times the learning rate.
    """
    of_parameter: dict[Variable, list[Variable]] = {}
    for variable, decision in decisions.items():
        if variable.slot is not None and decision.item.remapping is not None:
            of_parameter.setdefault(variable.slot.parameter, []).append(variable)
    for slots in of_parameter.values():
        items = [decisions[variable].item for variable in slots]
        if len({id(c.remapping) for item in items for c in item.changes if c.axis == 0}) > 1:
            for variable, item in zip(slots, _having_all(items), strict=True):
                yield variable, replace(decisions[variable], item=item)


def _having_all(items: Sequence[PlanItem]) -> Iterator[PlanItem]:
    """The items, of each only the rows along axis 0 that all of one length have."""
    along_rows = [next((c for c in item.changes if c.axis == 0), None) for item in items]
    for item, change in zip(items, along_rows, strict=True):
        if change is None:
            yield item
            continue
        alike = [
            (other.remapping.rows >= 0).to(change.remapping.rows.device)
            for other in along_rows
            if other is not None and len(other.remapping.rows) == len(change.remapping.rows)
        ]
        fewer, fill = change.remapping.where(torch.stack(alike).all(0)), change.fill
        if fewer is not change.remapping and fill is None and item.variable.slot is not None:
            fill = fill_of_slot(change.vocab, item.variable.slot.start)
        less = replace(change, remapping=fewer, fill=fill)
        yield replace(item, changes=tuple(less if c is change else c for c in item.changes))


def _not_whole(
    decisions: Mapping[Variable, Decision], broken: Mapping[Variable, str]
) -> Iterator[Finding]:
    """What is said of states that are left alone, and of those of which the user named a part."""
    named: dict[Variable, Variable] = {}  # by parameter: a slot that is taken nevertheless
    for variable, decision in decisions.items():
        if decision.item.state != "kept" and variable.slot is not None:
            named.setdefault(variable.slot.parameter, variable)
    alone = [parameter for parameter in broken if parameter not in named]
    if alone:
        text = (
            f"The optimizer's state of {plural(len(alone), 'parameter')} (such as "
            f"{alone[0].name!r}) stays as it is, with all of its slots, as parts of a state do not "
            f"go together: {broken[alone[0]]}"
        )
        yield Finding("state-not-whole", "note", alone[0].name, text)
    parts = [parameter for parameter in broken if parameter in named]
    if parts:
        text = (
            f"Of the optimizer's state of {plural(len(parts), 'parameter')} (such as "
            f"{parts[0].name!r}) only what var_name_to_prev_var_name names is taken (such as "
            f"{named[parts[0]].name!r}); its other slots stay as they are, which may not go "
            f"together: {broken[parts[0]]}"
        )
        yield Finding("state-in-parts", "warning", parts[0].name, text)


def _whole(decision: Decision, broken: Mapping[Variable, str]) -> Decision:
    item = decision.item
    assert item.variable.slot is not None
    is_part = item.variable.slot.parameter in broken and item.state != "kept"
    if not is_part or item.reason == BY_USER:
        return decision
    return Decision(PlanItem(item.variable, "kept", _NOT_WHOLE), is_missing=True)


def _find_left_behind(decisions: Mapping[Variable, Decision], known: _Known) -> list[Finding]:
    """An optimizer's state that is there, and of which the settings select nothing."""
    left = [slot for slot in decisions if _is_left_behind(slot, known)]
    is_some_taken = any(known.wishes[slot].is_selected for slot in decisions)
    if not left or is_some_taken or not _has_state(known.finder):
        return []
    text = (
        f"The optimizer's slots (such as {left[0].name!r}) stay as they are though the checkpoint "
        "has an optimizer's state, because vars_to_warm_start selects none of them: a pattern "
        "given as a str takes those of the parameters that it matches, a list of patterns those "
        "whose own names match, such as ['.*']."
    )
    return [Finding("slots-left-behind", "warning", left[0].name, text)]


def _is_left_behind(slot: Variable, known: _Known) -> bool:
    """Whether a slot is not wanted though its parameter is taken."""
    assert slot.slot is not None
    return known.of_model[slot.slot.parameter].item.state != "kept"


def _has_state(finder: SlotFinder) -> bool:
    try:
        return finder.has_state
    except WarmStartError:  # it cannot be read, and nobody asked for it
        return False


def _find_uncounted(decisions: Mapping[Variable, Decision]) -> list[Finding]:
    """Optimizers that get slots and keep in their param groups, or elsewhere, what goes with them.

    So apex's count their steps, and others what they have found out of the learning rate.
    """
    by_optimizer: dict[int, list[tuple[Slot, Decision]]] = {}
    for variable, decision in decisions.items():
        if variable.slot is not None:
            by_optimizer.setdefault(id(variable.slot.optimizer), []).append(
                (variable.slot, decision)
            )
    return [finding for slots in by_optimizer.values() for finding in _uncounted(slots)]


def _uncounted(slots: Sequence[tuple[Slot, Decision]]) -> Iterator[Finding]:
    from torch_warmstart.slots import changed_in_groups

    taken = [slot for slot, decision in slots if decision.item.state != "kept"]
    changed = changed_in_groups(taken)
    name = type(slots[0][0].optimizer).__name__
    if changed:
        kept = listed(map(repr, changed))
        yield Finding("steps-not-set", "warning", name, _IN_GROUPS.format(name=name, kept=kept))
    elif {slot.name for slot in taken} >= _AVERAGES and all(s.name != _STEP for s, _ in slots):
        yield Finding("steps-not-set", "warning", name, _STEPS_NOT_SET.format(name=name))


def _find_of_batches(decisions: Mapping[Variable, Decision], known: _Known) -> list[Finding]:
    """A count of steps that counts batches, several of which Keras made one update of.

    Its optimizer keeps the sums of gradients, and how many it sums in no checkpoint.
    """
    counted = [
        variable
        for variable, decision in decisions.items()
        if variable.slot is not None
        and variable.slot.name == _STEP
        and decision.item.state != "kept"
        and not known.located.finder.conventions.has_optimizer_entries
    ]
    if not counted or not _has_sums(known.located.finder.checkpoint):
        return []
    name = counted[0].name
    text = (
        f"{name} is a count of batches: the checkpoint's optimizer had gradient_accumulation_steps,"
        " and torch's is to count updates, by which Adam and others correct their averages. Divide "
        "the counts behind the warm start: state['step'] //= gradient_accumulation_steps."
    )
    return [Finding("steps-of-batches", "warning", name, text)]


def _has_sums(checkpoint: Checkpoint) -> bool:
    """One search of all names together: a regex for each takes as long as all else of a plan."""
    names = "\n".join((*checkpoint, *checkpoint.full_names(), ""))
    return any(part in names for part in _SUMS)


def _find_of_kernels(decisions: Mapping[Variable, Decision]) -> list[Finding]:
    """States of FBGEMM's kernels of which the file leaves open what they are, or how old."""
    from torch_warmstart.slots import has_averages_of_kernels

    taken: dict[Variable, set[str]] = {}
    presumed = None
    for variable, decision in decisions.items():
        slot, item = variable.slot, decision.item
        if slot is not None and slot.is_fused and item.state != "kept":
            taken.setdefault(slot.parameter, set()).add(slot.name)
            presumed = presumed or (item if item.is_inferred else None)
    found = []
    if presumed is not None:
        text = _PRESUMED.format(name=presumed.name, key=presumed.keys[0])
        found.append(Finding("slot-of-presumed-kind", "warning", presumed.name, text))
    averages = [parameter for parameter, names in taken.items() if has_averages_of_kernels(names)]
    if averages:
        text = _STEPS_OF_KERNELS.format(parameter=averages[0].name)
        found.append(Finding("steps-not-set", "warning", averages[0].name, text))
    return found


def _find_strangers(decisions: Mapping[Variable, Decision], optimizer: Optimizers) -> list[Finding]:
    """An optimizer that still has the parameters which a layer had before it was replaced."""
    from torch_warmstart.slots import left_out

    of_slots = [decision for variable, decision in decisions.items() if variable.slot is not None]
    is_asked = any(d.item.state != "kept" or d.breaks_state is not None for d in of_slots)
    names, strangers = left_out(optimizer, decisions) if is_asked else ([], 0)
    if not names or not strangers:
        return []
    text = (
        f"{plural(len(names), 'parameter')} of the model (such as {names[0]!r}) "
        f"{'is' if len(names) == 1 else 'are'} in no optimizer, which has "
        f"{plural(strangers, 'tensor')} that the model does not have, as happens where a layer "
        "is replaced after the optimizer is made: make it from model.parameters() when the "
        "model is complete."
    )
    return [Finding("optimizer-has-strangers", "warning", names[0], text)]
