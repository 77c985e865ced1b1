"""Plans of several checkpoints become one: each variable is one plan's, or there is a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from torch_warmstart.errors import Finding, PlanError, plural
from torch_warmstart.formats import Checkpoint
from torch_warmstart.model import Variable
from torch_warmstart.planning.plan import NOT_SELECTED, PlanItem, WarmStartPlan
from torch_warmstart.planning.planner import all_variables, make_plan
from torch_warmstart.planning.several.checkpoints import (
    SeveralCheckpoints,
    is_numbered,
    numbered,
    numbered_key,
)
from torch_warmstart.settings import WarmStartSettings
from torch_warmstart.slots import Optimizers
from torch_warmstart.values import Overlap

Source = tuple[Checkpoint, WarmStartSettings]


def plan_several(
    model: torch.nn.Module,
    sources: Sequence[Source],
    optimizer: Optimizers | None,
    *,
    overlap: Overlap,
    complete: Callable[[WarmStartPlan], WarmStartPlan],
) -> WarmStartPlan:
    """One plan of several checkpoints, each with settings of its own.

    Args:
        model: The model to fill.
        sources: The checkpoints and what is asked of each, the first first.
        optimizer: The model's.
        overlap: Whether a variable that two would fill is an error, or the first one's.
        complete: Adds to the plan of one checkpoint what is taken from older ones.

    Raises PlanError: with the problems of all of them.
    """
    variables = all_variables(model, optimizer)
    plans: list[WarmStartPlan] = []
    problems: list[Finding] = []
    taken: set[Variable] = set()
    for checkpoint, settings in sources:
        left_out = taken if overlap == "first" else ()
        try:
            plan = make_plan(
                model, settings, checkpoint, optimizer, variables=variables, leave_out=left_out
            )
            plans.append(complete(plan))
        except PlanError as error:
            problems += [_of(checkpoint, problem) for problem in error.problems]
            continue
        taken |= {item.variable for item in plans[-1].items if item.state != "kept"}
    if problems:
        subject = f"The warm start from {plural(len(sources), 'checkpoint')}"
        raise PlanError.of(subject, problems)
    return merged(plans)


def _of(checkpoint: Checkpoint, problem: Finding) -> Finding:
    return replace(problem, text=f"From {checkpoint.url}: {problem.text}")


def merged(plans: Sequence[WarmStartPlan]) -> WarmStartPlan:
    """One plan of several for the same model and optimizer, in their order.

    Raises PlanError: a variable is taken from more than one.
    """
    checkpoint = SeveralCheckpoints([plan.checkpoint for plan in plans])
    problems = list(_claimed_twice(plans))
    if problems:
        raise PlanError.of(f"The warm start from {checkpoint.url}", problems)
    items = tuple(_item(of_one) for of_one in zip(*(plan.items for plan in plans), strict=True))
    used = {key for item in items for key in item.keys}
    unused = [
        key
        for at, plan in enumerate(plans)
        for key in (numbered_key(at, one) for one in plan.unused_keys)
        if key not in used
    ]
    missing = [name for plan in plans for name in plan.missing]
    is_kept = {item.name for item in items if item.state == "kept"}
    notes = [
        replace(note, text=f"From {at}: {note.text}")
        for at, plan in enumerate(plans, 1)
        for note in plan.notes
    ]
    audits = [audit for plan in plans for audit in plan.audits]
    return replace(
        plans[0],
        checkpoint=checkpoint,
        settings=replace(plans[0].settings, verify=any(p.settings.verify for p in plans)),
        items=items,
        unused_keys=tuple(unused),
        missing=tuple(name for name in dict.fromkeys(missing) if name in is_kept),
        mismatched=tuple(m for plan in plans for m in plan.mismatched if m[0] in is_kept),
        notes=tuple({note.text: note for note in notes}.values()),
        audits=tuple({str(audit): audit for audit in audits}.values()),
        seconds=sum(plan.seconds for plan in plans),
    )


def _item(of_one: Sequence[PlanItem]) -> PlanItem:
    """What happens to a variable: what the plan says that takes it, or that asks for it."""
    taken = [(at, item) for at, item in enumerate(of_one) if item.state != "kept"]
    if taken:
        return number_item(*taken[0])
    asked = [(at, item) for at, item in enumerate(of_one) if item.reason != NOT_SELECTED]
    return number_item(*(asked or [(0, of_one[0])])[0])


def number_item(number: int, item: PlanItem) -> PlanItem:
    """The item, of the checkpoint of that number among several."""
    return replace(
        item,
        sources=tuple(numbered(number, spec) for spec in item.sources),
        patches=tuple(number_item(number, patch) for patch in item.patches),
    )


def is_of(number: int, item: PlanItem) -> bool:
    """Whether an item is of the checkpoint of that number."""
    return any(is_numbered(number, spec) for spec in item.sources)


def _claimed_twice(plans: Sequence[WarmStartPlan]) -> Iterator[Finding]:
    first: dict[Variable, int] = {}
    for at, plan in enumerate(plans, 1):
        for item in plan.items:
            if item.state == "kept":
                continue
            before = first.setdefault(item.variable, at)
            if before != at:
                urls = [plans[number - 1].checkpoint.url for number in (before, at)]
                text = (
                    f"{item.name} would be taken from two checkpoints, {urls[0]} and {urls[1]}: "
                    "let only one of the settings select it (vars_to_warm_start), or take the "
                    "first that has it with overlap='first'."
                )
                yield Finding("claimed-twice", "error", item.name, text)
