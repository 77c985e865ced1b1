"""Rows of entries that are back come from older checkpoints: `VocabInfo.fallback`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.formats import Checkpoint
from torch_warmstart.new_rows import Keep
from torch_warmstart.planning.plan import PlanItem, WarmStartPlan
from torch_warmstart.planning.planner import make_plan
from torch_warmstart.planning.several.checkpoints import SeveralCheckpoints
from torch_warmstart.planning.several.merging import number_item
from torch_warmstart.settings import VocabInfo, WarmStartSettings
from torch_warmstart.slots import Optimizers
from torch_warmstart.vocabularies import Remapping

Opened = Callable[[WarmStartSettings], Checkpoint]


def with_returned(
    plan: WarmStartPlan, optimizer: Optimizers | None, opened: Opened
) -> WarmStartPlan:
    """The plan with rows from older checkpoints where its own has none; the first that has one.

    Args:
        plan: What is taken from the newest.
        optimizer: The model's, as the plan was made for.
        opened: Opens the checkpoint of settings.

    Raises PlanError: an older checkpoint does not have the variable, or not as it is now.
    """
    asked = _asked(plan)
    if not asked:
        return plan
    older = {of: _planned(plan, sources, optimizer, opened) for of, sources in asked.items()}
    number = {of: at for at, of in enumerate(older, 1)}
    found = {of: {i.variable: i for i in one.items} for of, one in older.items()}

    def patched(item: PlanItem, past: _Past | None = None) -> tuple[PlanItem, _Past]:
        order = [one for one, _, _ in _named(item)]
        others = [(number[of], found[of].get(item.variable)) for of in order]
        return _with_patches(number_item(0, item), others, past)

    of_model = {i.variable: patched(i) for i in plan.items if i.variable.slot is None}
    items = [
        of_model[item.variable][0]
        if item.variable.slot is None
        else patched(item, of_model[item.variable.slot.parameter][1])[0]
        for item in plan.items
    ]
    return replace(
        plan,
        checkpoint=SeveralCheckpoints([plan.checkpoint, *(p.checkpoint for p in older.values())]),
        items=tuple(items),
        unused_keys=tuple(f"1:{key}" for key in plan.unused_keys),
        seconds=plan.seconds + sum(one.seconds for one in older.values()),
    )


_Asked = dict[Hashable, tuple[Any, dict[PlanItem, Any]]]


def _asked(plan: WarmStartPlan) -> _Asked:
    """The older checkpoints, each with the parameters that want it and the vocabularies it had."""
    asked: _Asked = {}
    for item in plan.items:
        for one, checkpoint, source in _named(item) if item.variable.slot is None else ():
            _, wanting = asked.setdefault(one, (checkpoint, {}))
            wanting[item] = source
    return asked


def _named(item: PlanItem) -> Iterator[tuple[Hashable, Any, Any]]:
    """Its older checkpoints, told apart: one may be there twice, with another vocabulary."""
    times: Counter[Hashable] = Counter()
    for checkpoint, source in item.fallback:
        one = _identity(checkpoint)
        times[one] += 1
        yield (one, times[one]), checkpoint, source


def _identity(checkpoint: Any) -> Hashable:
    return checkpoint if isinstance(checkpoint, str) else id(checkpoint)


def _planned(
    plan: WarmStartPlan,
    sources: tuple[Any, Mapping[PlanItem, Any]],
    optimizer: Optimizers | None,
    opened: Opened,
) -> WarmStartPlan:
    """What an older checkpoint has for the parameters that want it."""
    checkpoint, wanting = sources
    infos = {item.name: _info(item, source) for item, source in wanting.items()}
    settings = replace(
        plan.settings, ckpt_to_initialize_from=checkpoint, var_name_to_vocab_info=infos
    )
    wanted = {item.variable for item in wanting}
    variables = tuple(item.variable for item in plan.items)
    others = {v for v in variables if v.slot is None and v not in wanted}
    return make_plan(
        plan.model,
        settings,
        opened(settings),
        optimizer,
        variables=variables,
        leave_out=others,
        is_older=True,
    )


def _info(item: PlanItem, source: Any) -> VocabInfo:
    assert isinstance(item.vocab, VocabInfo)
    return replace(
        item.vocab,
        old_vocab=source,
        old_vocab_size=-1,
        old_num_oov_buckets=0,  # OOV rows are the newest's, or begin anew
        backup_initializer="keep",
        generator=None,
        min_found=0.0,
        fallback=(),
    )


_Past = dict[int, torch.Tensor]  # which rows come from the checkpoint of a number: bool


def _with_patches(
    item: PlanItem, others: list[tuple[int, PlanItem | None]], past: _Past | None
) -> tuple[PlanItem, _Past]:
    """With what the others have of the rows that it lacks, and which rows these are.

    `past` is a slot's parameter's: where its row comes from, the slot's does too, or begins anew.
    """
    taken: _Past = {}
    if item.remapping is None:
        return item, taken
    lacking = item.remapping.rows < 0
    patches = []
    for number, other in others:
        if other is None or other.first is None:
            continue
        first = other.first  # check_fallback sees to it that there is no further one
        may = lacking if past is None else lacking & _in_blocks(past.get(number), lacking)
        rows = torch.where(may, first.remapping.rows, -1)
        found = rows >= 0
        if bool(found.any()):
            back = replace(first, remapping=_of_rows(first.remapping, rows), fill=Keep())
            patches.append(replace(number_item(number, other), changes=(back,)))
            lacking, taken[number] = lacking & ~found, found
    return replace(item, patches=tuple(patches)), taken


def _in_blocks(rows: torch.Tensor | None, lacking: torch.Tensor) -> torch.Tensor:
    """Rows of a parameter as those of its slot, which may have all of them several times."""
    if rows is None:
        return torch.zeros_like(lacking)
    return rows.to(lacking.device).repeat(len(lacking) // max(1, len(rows)))


def _of_rows(remapping: Remapping, rows: torch.Tensor) -> Remapping:
    """Of a remapping what other checkpoints do not have."""
    count = int((rows >= 0).sum())
    return replace(
        remapping,
        rows=rows,
        num_present=count,
        num_new=len(rows) - count,
        num_oov=0,
        num_oov_copied=0,
        num_vacant=0,
    )
