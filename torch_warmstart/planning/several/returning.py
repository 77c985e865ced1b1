"""Rows of entries that are back come from older checkpoints: `VocabInfo.fallback`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.computing import count_with_old_row
from torch_warmstart.errors import Finding, PlanError, SettingsError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.new_rows import Keep
from torch_warmstart.planning.fitting import why_too_few
from torch_warmstart.planning.plan import PlanItem, WarmStartPlan
from torch_warmstart.planning.planner import make_plan
from torch_warmstart.planning.several.checkpoints import SeveralCheckpoints
from torch_warmstart.planning.several.merging import is_of, number_item
from torch_warmstart.settings import VocabInfo, WarmStartSettings
from torch_warmstart.slots import Optimizers
from torch_warmstart.storage import Storage
from torch_warmstart.vocabularies import Remapping, read_vocabulary

Opened = Callable[[WarmStartSettings], Checkpoint]


def with_returned(
    plan: WarmStartPlan, optimizer: Optimizers | None, opened: Opened
) -> WarmStartPlan:
    """The plan with rows from older checkpoints where its own has none; the first that has one.

    Args:
        plan: What is taken from the newest.
        optimizer: The model's, as the plan was made for.
        opened: Opens the checkpoint of settings.

    Raises PlanError: an older checkpoint does not have the variable, or not as it is now; or all
    together have less than a `min_found` asks for.
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
    _check_shares_found(items)
    return replace(
        plan,
        checkpoint=SeveralCheckpoints([plan.checkpoint, *(p.checkpoint for p in older.values())]),
        items=tuple(items),
        unused_keys=tuple(f"1:{key}" for key in plan.unused_keys),
        notes=(*plan.notes, *_notes_of(older.values(), items)),
        seconds=plan.seconds + sum(one.seconds for one in older.values()),
    )


def _check_shares_found(items: Iterable[PlanItem]) -> None:
    """Those that are back were found, too."""
    problems = []
    for item in items:
        rows, info, remapping = item.rows, item.vocab, item.remapping
        if item.fallback and rows and isinstance(info, VocabInfo) and remapping is not None:
            found = why_too_few(item.variable, info, rows.entries_found, rows.entries, remapping)
            problems += [found.finding] if found is not None else []
    if problems:
        raise PlanError.of("The warm start from all checkpoints", problems)


_NO_NEWS = ("few-entries-found", "oov-rows-left-behind")  # an older one has few of what is new


def _notes_of(older: Iterable[WarmStartPlan], items: Sequence[PlanItem]) -> Iterator[Finding]:
    """What is to be said of older checkpoints from which something is taken."""
    for number, one in enumerate(older, 1):
        taken = {item.name for item in items if any(is_of(number, p) for p in item.patches)}
        about = {*taken, one.checkpoint.url} if taken else taken
        for note in one.notes:
            if note.subject in about and note.code not in _NO_NEWS:
                yield replace(note, text=f"Of the fallback {one.checkpoint.url}: {note.text}")


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
    is_path = isinstance(checkpoint, str | os.PathLike)
    return os.fspath(checkpoint) if is_path else id(checkpoint)


def _planned(
    plan: WarmStartPlan,
    sources: tuple[Any, Mapping[PlanItem, Any]],
    optimizer: Optimizers | None,
    opened: Opened,
) -> WarmStartPlan:
    """What an older checkpoint has for the parameters that want it."""
    given, wanting = sources
    has_own = isinstance(given, WarmStartSettings)
    if has_own:
        _check_only_how(given)
    older = given if has_own else replace(plan.settings, ckpt_to_initialize_from=given)
    infos = {item.name: _info(item, source) for item, source in wanting.items()}
    if has_own:  # what is new is where the newest's settings find it
        infos = {n: _with_new_vocab(info, plan.settings.storage) for n, info in infos.items()}
    chosen = plan.settings.vars_to_warm_start
    settings = replace(older, vars_to_warm_start=chosen, var_name_to_vocab_info=infos)
    checkpoint = opened(settings)
    wanted = {item.variable for item in wanting}
    variables = tuple(item.variable for item in plan.items)
    others = {v for v in variables if v.slot is None and v not in wanted}
    try:
        return make_plan(
            plan.model,
            settings,
            checkpoint,
            optimizer,
            variables=variables,
            leave_out=others,
            is_older=True,
        )
    except PlanError as error:
        problems = error.problems if has_own else [_with_advice(one) for one in error.problems]
        raise PlanError.of(f"The fallback {checkpoint.url}", problems) from error


def _check_only_how(older: WarmStartSettings) -> None:
    """Raises SettingsError: they say what is taken, too."""
    is_for_all = older.vars_to_warm_start == WarmStartSettings.vars_to_warm_start
    if older.var_name_to_vocab_info or not is_for_all:
        raise SettingsError(
            "Settings in fallback say which checkpoint it is, how its names differ and how it is "
            "read; what is taken of it the VocabInfo says that they stand in. Leave "
            "vars_to_warm_start and var_name_to_vocab_info out of them."
        )


_ADVICE = (
    "Where an older checkpoint has other names, or is read otherwise, give it settings of its own: "
    "fallback=[(WarmStartSettings(url, ...), vocabulary)]."
)


def _with_advice(problem: Finding) -> Finding:
    return replace(problem, hint="\n".join(filter(None, (problem.hint, _ADVICE))))


def _with_new_vocab(info: VocabInfo, storage: Storage) -> VocabInfo:
    return replace(info, new_vocab=read_vocabulary(info.new_vocab, storage=storage))


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
    mask, count = remapping.mask, count_with_old_row(rows)
    num_masks = count_with_old_row(rows[mask.start : mask.stop])
    return replace(
        remapping,
        rows=rows,
        num_present=count - num_masks,
        num_new=len(rows) - count,
        num_oov=0,
        num_oov_copied=0,
        num_vacant=num_masks,
        num_vacant_copied=num_masks,
    )
