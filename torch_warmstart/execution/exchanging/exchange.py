"""A live model gets other vocabularies: all is made beside it, then put in place at once.

Up to the last entry whatever goes wrong is undone; nothing that exists is written into. So what
somebody else still holds of the old tensors stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.errors import PartialWriteError, PlanError
from torch_warmstart.execution.exchanging.entries import (
    Entry,
    entries_of_mapping,
    entries_of_model,
    entries_of_optimizer,
)
from torch_warmstart.execution.exchanging.tokens import (
    Said,
    tables_left,
    tokens_left,
    what_is_said,
)
from torch_warmstart.execution.exchanging.twins import Twin, twin_of
from torch_warmstart.execution.execute import execute_plan
from torch_warmstart.execution.insisting import insist
from torch_warmstart.execution.report import WarmStartReport
from torch_warmstart.execution.telling import add_note, as_ours, log_of, warn_of
from torch_warmstart.planning.live import CHANGE, ChangedTable, copies_of, find_left, inner_copy
from torch_warmstart.slots import Optimizers, optimizers_in

_NEW_OPTIMIZER = "Make a new optimizer instead of passing this one."
_AS_BEFORE = "Model, optimizer and copies are as they were."


def exchange_vocabulary(
    model: torch.nn.Module,
    tables: Sequence[ChangedTable],
    optimizer: Optimizers | None = None,
    ema: Sequence[Any] = (),
    *,
    progress: bool | None = None,
) -> WarmStartReport:
    """Makes the tables anew and puts them into model, optimizers and copies: all, or nothing.

    Raises WarmStartError; KeyboardInterrupt and its like go through, with a note that says whether
    the exchange is complete.
    """
    switch: _Switch | None = None
    try:
        switch = _Switch()
        return _exchange(switch, model, tables, optimizer, ema, progress=progress)
    except Exception as error:
        raised = _in_its_words(_of_model(error))
        ours = as_ours(raised, _AS_BEFORE if switch is None else switch.state())
        if ours is error:
            raise
        raise ours from (ours.__cause__ if ours is raised else raised)


def _exchange(
    switch: _Switch,
    model: torch.nn.Module,
    tables: Sequence[ChangedTable],
    optimizer: Optimizers | None,
    ema: Sequence[Any],
    *,
    progress: bool | None,
) -> WarmStartReport:
    try:
        copies = [(inner_copy(copy), copies_of(tables, copy)) for copy in ema]
        twin = twin_of(model, tables, optimizer)
        said = what_is_said(model, tables)
        found = (*tokens_left(said), *tables_left(model, tables), *find_left(model, tables))
        left = list({finding.text: finding for finding in found}.values())
        warn_of(left)
        beside = [model, *_beside(optimizer, ema)]
        report = execute_plan(twin.plan, progress=progress, complete=_AS_BEFORE, beside=beside)
        report = replace(report, notes=(*report.notes, *left))
        twins = [(copy, _filled_copy(copy, its, twin)) for copy, its in copies]
        switch.entries = tuple(_entries(model, twin, said, twins))
        insist(switch.run, switch.settle)
        log_of(report)
    except BaseException as error:
        if not isinstance(error, Exception):
            add_note(error, switch.state())
        raise
    return report


def _beside(
    optimizer: Optimizers | None, ema: Sequence[Any]
) -> Iterator[torch.nn.Module | torch.Tensor | torch.optim.Optimizer]:
    """What an initialiser may change as little as the model: copies, and what optimizers keep."""
    for copy in ema:
        inner = inner_copy(copy)
        yield from [inner] if isinstance(inner, torch.nn.Module) else _tensors(inner)
    for one in () if optimizer is None else optimizers_in(optimizer):
        yield one
        for state in one.state.values():
            yield from _tensors(state)


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """Of a parameter's state, or a copy; what an optimizer keeps besides need be no mapping."""
    values = state.values() if isinstance(state, Mapping) else [state]
    return (value for value in values if isinstance(value, torch.Tensor))


def _of_model(error: Exception) -> Exception:
    """What was raised; a new table that is filled in part is nothing of the model's."""
    is_partial = isinstance(error, PartialWriteError) and isinstance(error.__cause__, Exception)
    return error.__cause__ if is_partial else error  # type: ignore[return-value]


def _in_its_words(error: Exception) -> Exception:
    """What a plan was refused for; what it advises names settings that are none of these."""
    if not isinstance(error, PlanError):
        return error
    problems = [
        replace(problem, hint=_NEW_OPTIMIZER if problem.code.startswith("slot-") else "")
        for problem in error.problems
    ]
    return PlanError.of(CHANGE, problems).with_traceback(error.__traceback__)


def _filled_copy(copy: Any, tables: Sequence[ChangedTable], twin: Twin) -> Twin:
    """A copy's own rows, and for the new ones what the model begins with."""
    by_name = {
        name: new
        for table, new in zip(twin.tables, twin.new, strict=True)
        for name in table.variable.names
    }
    beginnings = {t.variable.name: by_name[t.variable.name].detach() for t in tables}
    made = twin_of(copy, tables, beginnings=beginnings)
    execute_plan(made.plan, progress=False, complete=_AS_BEFORE)
    return made


def _entries(
    model: torch.nn.Module, twin: Twin, said: Sequence[Said], copies: Sequence[tuple[Any, Twin]]
) -> Iterator[Entry]:
    yield from entries_of_model(model, twin, said)
    for of_optimizer in twin.optimizers:
        yield from entries_of_optimizer(of_optimizer)
    for copy, of_copy in copies:
        if isinstance(copy, torch.nn.Module):
            yield from entries_of_model(copy, of_copy, what_is_said(copy, of_copy.tables))
        else:
            yield from entries_of_mapping(copy, of_copy)


def _undone(entry: Entry) -> Exception | None:
    """Undoes one; what a copy's class has raised."""
    try:
        entry.undo()
    except Exception as error:
        return error
    return None


class _Switch:
    """Entries on their way: undone until the last has been written."""

    def __init__(self) -> None:
        self.entries: tuple[Entry, ...] = ()
        self.is_done = False
        self.is_left = False  # whether something of a copy could not be undone

    def run(self) -> None:
        """Writes them all; may be left anywhere."""
        for entry in self.entries:
            entry.put()
        self.is_done = True

    def settle(self) -> None:
        """Undoes them, unless all are written; a second time makes no difference.

        One that refuses keeps no other from it, and is raised when all have been tried.
        """
        left = () if self.is_done else tuple(reversed(self.entries))
        refused = [error for entry in left if (error := _undone(entry)) is not None]
        self.is_left = bool(refused)
        if refused:
            raise refused[0]

    def state(self) -> str:
        """What has become of the model."""
        if self.is_done:
            return "The vocabulary is changed, in model, optimizer and copies."
        if self.is_left:
            return "Model and optimizer are as they were, and of a copy what it could take back is."
        return _AS_BEFORE
