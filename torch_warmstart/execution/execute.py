"""Carrying out a plan: check, prepare, load what loads itself, commit, account for it.

What to do has been decided while planning. The model is compared with the plan; what is read is
verified and what is initialised is made (`prepare`); modules with code of their own are loaded,
journalled (`module_loading`); then the rest is written (`commit`). Up to there whatever goes wrong
is undone, and from there on it is done to its end, so that model and optimizer are as they were, or
as planned.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from torch_warmstart.computing import forget_derived
from torch_warmstart.display import Advance, progress_bar
from torch_warmstart.dtypes import dtype_name
from torch_warmstart.errors import SettingsError, WarmStartError, plural
from torch_warmstart.execution.commit import Prepared, RollForward, SourceChangedError
from torch_warmstart.execution.initialising import Guard
from torch_warmstart.execution.insisting import insist
from torch_warmstart.execution.prepare import made_rows, prepare, room_to_work
from torch_warmstart.execution.ranks import Agreement
from torch_warmstart.execution.reading import ALL, Share, lacks_something
from torch_warmstart.execution.report import WarmStartReport, make_report
from torch_warmstart.execution.staging import Memory
from torch_warmstart.execution.telling import add_note, as_ours, log_of, sentence_of, warn_of
from torch_warmstart.execution.watching import Watch
from torch_warmstart.model import (
    Journal,
    Outline,
    Variable,
    check_tensors_hold_values,
    is_frozen_by_inference,
    names_by_tensor,
    why_unwritable,
)
from torch_warmstart.planning import PlanItem, WarmStartPlan, parts_read
from torch_warmstart.values import Staging

if TYPE_CHECKING:
    from torch_warmstart.execution.loading import Materialised
    from torch_warmstart.execution.ranks import Exchange

Beside = Sequence[torch.nn.Module | torch.Tensor | torch.optim.Optimizer]

_AS_BEFORE = "Model and optimizer are as they were."
_COMPLETE = "The warm start is complete: model and optimizer are as planned."
_COMPLETE_HERE = "On this rank it is complete: model and optimizer are as planned."


def execute_plan(
    plan: WarmStartPlan,
    *,
    progress: bool | None = None,
    agreement: Callable[[], Agreement] = Agreement,
    staging: Staging = "none",
    memory_limit: int | None = None,
    complete: str = _COMPLETE,
    beside: Beside = (),
) -> WarmStartReport:
    """Carries out a plan: all of it, or nothing.

    Args:
        plan: What to do.
        progress: Whether to show a progress bar; None: for long work on a terminal.
        agreement: Gives those that do it together; as it is, this process alone.
        staging: Whether all that the commit reads is in memory before: "memory".
        memory_limit: Bytes that may be taken beside; None: any number.
        complete: What an error says where all has been written.
        beside: Other models, tensors and optimizers that nobody's code may change meanwhile.

    Raises WarmStartError; KeyboardInterrupt and its like go through, with a note that says whether
    the warm start is complete.
    """
    run: _Run | None = None
    try:
        run = _Run(plan, complete, beside)
        return _execute(run, progress, agreement, partial(Memory, staging, memory_limit))
    except Exception as error:
        ours = as_ours(error, _AS_BEFORE) if run is None else run.explained(error)
        if ours is error:
            raise
        raise ours from error


def _execute(
    run: _Run,
    progress: bool | None,
    agreement: Callable[[], Agreement],
    memory: Callable[[], Memory],
) -> WarmStartReport:
    try:
        run.agreement = agreement()  # first: the others hear of what is raised from here on
        run.memory = memory()
        warn_of(run.plan.notes)  # may raise, if that is what warnings do here
        return _carry_out(run.plan, run, progress)
    except BaseException as error:
        run.tell(error)
        if not isinstance(error, Exception):
            add_note(error, run.state())
        raise


def _carry_out(plan: WarmStartPlan, run: _Run, progress: bool | None) -> WarmStartReport:
    done: list[WarmStartReport] = []
    insist(lambda: done.append(_written(plan, run, progress)), run.close)
    return done[0]


def _written(plan: WarmStartPlan, run: _Run, progress: bool | None) -> WarmStartReport:
    started = time.perf_counter()
    total = 2 * sum(item.nbytes for item in plan.items if item.state != "kept")
    title = plan.purpose.capitalize()
    with progress_bar(total, show=progress, title=title) as advance, torch.no_grad():
        insist(lambda: run.begin(advance), run.settle)
        run.conclude()
    seconds = plan.seconds + time.perf_counter() - started
    report = make_report(run.plan, run.outcome, seconds=seconds)
    if plan.purpose == "warm start":  # else something is still to be done with what was made
        log_of(report)
    return report


class _Run:
    """One plan on its way: undone until its commit begins, and done to its end from then on.

    Where several processes carry it out, the commit begins when all have said that they are ready.
    """

    def __init__(self, plan: WarmStartPlan, complete: str, beside: Beside = ()) -> None:
        from torch_warmstart.execution.loading import Outcome

        self.outcome = Outcome()
        self._complete, self._beside = complete, beside
        self._had_grad = torch.is_grad_enabled()
        self.plan = plan
        self.agreement, self.memory = Agreement(), Memory()
        self._journal: Journal | None = None
        self._materialised: Materialised | None = None
        self._ready: RollForward | None = None
        self._forward: RollForward | None = None
        self._watch: Watch | None = None

    def begin(self, advance: Advance) -> None:
        """All up to the commit; may be left anywhere."""
        from torch_warmstart.execution.loading import Materialised, load_modules
        from torch_warmstart.execution.ranks import replicas_may_differ, same_chance, told_of_rows

        planned = plan = self.plan
        check_tensors_hold_values()
        check_unchanged(plan)
        self.memory.check_plan(plan)
        parts = parts_read(plan.items)
        watch = Watch(plan.checkpoint, {key for one in parts for key in one.keys})
        self._watch = watch
        share, chance, is_any_lacking = self._agree()
        alone = replicas_may_differ(plan) if self.agreement.is_alone else []
        slots = [item.variable.tensor for item in plan.items if item.variable.slot is not None]
        self._materialised = Materialised(plan)
        self.plan = plan = self._materialised.register()
        models = [one for one in self._beside if isinstance(one, torch.nn.Module)]
        tensors = [one for one in self._beside if isinstance(one, torch.Tensor)]
        self._journal = journal = Journal(
            plan.model, [*slots, *tensors], self._materialised.tensors, models
        )
        with same_chance(planned, chance):
            left = self._materialised.initialise(journal, self.outcome)
            exchange = self._exchange() if is_any_lacking else None
            guard = Guard(journal, [plan.model, *models], self._optimizers())
            try:
                prepared = prepare(plan, advance, guard.run, watch, share=share, exchange=exchange)
            finally:
                guard.put_back()
            made = {} if self.agreement.is_alone else told_of_rows(made_rows(prepared))
            self._account_for(prepared)
        room = room_to_work(prepared)
        self.memory.check_work(room.nbytes)
        prepared = load_modules(plan, prepared, journal, self.outcome)
        left += self._materialised.settle_kept(self.outcome)
        warn_of([*alone, *left])
        self.outcome.notes += [*alone, *left]
        del room
        prepared = self.memory.staged(prepared)
        watch.check_prepared()
        self._ready = RollForward(prepared, advance, self.memory.check_while(watch.check))
        self.agreement.say_ready(made)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        slots = (item.variable.slot for item in self.plan.items)
        planned = [slot.optimizer for slot in slots if slot is not None]
        every = [*planned, *self._beside]
        return list({id(o): o for o in every if isinstance(o, torch.optim.Optimizer)}.values())

    def _account_for(self, prepared: Prepared) -> None:
        """What new rows are made of, and what showed only when they were made."""
        for place, filled in prepared.filled.items():
            warn_of(filled.notes)
            self.outcome.notes += filled.notes
            self.outcome.new_rows[place] = filled.account

    def _agree(self) -> tuple[Share, Mapping[str, str], bool]:
        """What of the checksums this process checks, and from where random numbers go on.

        And whether one needs what others have in memory.
        """
        if self.agreement.is_alone:
            return ALL, {}, False
        from torch_warmstart.execution.ranks import chance_of, marks_of, told_of

        told, marks = told_of(self.plan), marks_of(self.plan)
        lacks = lacks_something(self.plan)
        verdict = self.agreement.agree(told, marks, chance_of(self.plan), lacks=lacks)
        share = Share(*self.agreement.place) if verdict.is_same else ALL
        return share, verdict.given, verdict.is_any_lacking

    def _exchange(self) -> Exchange:
        from torch_warmstart.execution.ranks import Exchange

        keys = [key for part in parts_read(self.plan.items) for key in part.keys]
        return Exchange(
            self.plan.checkpoint, list(dict.fromkeys(keys)), self.agreement, self.memory.check_sent
        )

    def settle(self) -> None:
        """Undoes all, or finishes it; does nothing where that is done.

        From where this process has said that it is ready, that is for all to decide.
        """
        if self._forward is None and self.agreement.is_told_ready() and self.agreement.is_go():
            self._forward = self._ready
        if self._forward is not None:
            self._forward.finish()
        else:
            if self._journal is not None:
                self._journal.restore()
            if self._materialised is not None:
                self._materialised.undo()

    def conclude(self) -> None:
        """Raises WarmStartError unless all processes have written all."""
        self.agreement.check_ready()
        self.agreement.finish()

    def tell(self, error: BaseException) -> None:
        """Tells the others what has become of it here."""
        if self._forward is not None and self._forward.is_complete:
            with contextlib.suppress(WarmStartError):  # it is raised already, or comes second
                self.agreement.finish()
        else:
            self.agreement.cannot(error)

    def close(self) -> None:
        """Lets go of the source, whatever became of it, and of the caller's thread."""
        torch.set_grad_enabled(self._had_grad)  # an interrupt may strike before no_grad is left
        forget_derived()  # undone, too: a model's own code may have run it meanwhile
        if self._journal is not None:
            self._journal.close()
        if self._watch is not None:
            self._watch.close()

    def state(self) -> str:
        """What has become of model and optimizer."""
        if self._forward is None:
            return _AS_BEFORE
        if self._forward.is_complete:
            return self._complete if self.agreement.is_alone else _COMPLETE_HERE
        return str(self._forward.partial(self._forward.stopped_by or SourceChangedError()))

    def explained(self, error: Exception) -> Exception:
        """An error of ours for whatever was raised."""
        forward = self._forward
        if forward is not None and forward.is_complete:
            return WarmStartError(f"{sentence_of(error)} {self.state()}")
        if forward is not None:
            return forward.partial(forward.stopped_by or error)
        return as_ours(error, _AS_BEFORE)


def check_unchanged(plan: WarmStartPlan) -> None:
    """The model must still hold the very tensors that were planned for, and the optimizer too."""
    planned = (item.variable for item in plan.items)
    now = names_by_tensor(plan.model)
    then = {id(v.tensor): v.name for v in planned if v.slot is None}
    if [*now] != [*then] or now != then:
        both = zip(then.items(), now.items(), strict=False)
        changed = next((a[1] for a, b in both if a != b), None)
        how = f"it had {plural(len(then), 'variable')}, and has {len(now):,} now"
        raise _changed("The model", f"{changed} is another tensor now" if changed else how)
    for item in plan.items:
        if item.state != "kept":
            _check_target(item.variable, plan.outlines[item.variable])
    slots = [item for item in plan.items if item.variable.slot is not None]
    if slots:
        _check_slots(slots, plan)
    _check_sources(plan)


def _check_slots(slots: Sequence[PlanItem], plan: WarmStartPlan) -> None:
    """An optimizer must still keep what was planned for, or its next step finds a part of it."""
    from torch_warmstart.slots import changed_slot, is_as_planned

    other = next((item.name for item in slots if not is_as_planned(item.variable)), None)
    if other is not None:
        raise _changed("The optimizer", f"{other} is another tensor now")
    if all(item.state == "kept" for item in slots):
        return
    changed = changed_slot([item.variable for item in slots], (i.variable for i in plan.items))
    if changed is not None:
        is_planned = any(item.name == changed for item in slots)
        how = "would no longer be kept" if is_planned else "is kept besides"
        raise _changed("The optimizer", f"{changed} {how}, by its parameters and options now")


def _check_target(variable: Variable, then: Outline) -> None:
    """What will be written to must be as it was planned for, and let itself be written to.

    `model.half()` and whoever sets `parameter.data` leave the tensor the same one.
    """
    now = variable.outline
    if now != then:
        shown = [f"{dtype_name(dtype)} {list(shape)}" for shape, dtype in (now, then)]
        raise _changed(variable.name, f"it is {shown[0]} now, and was {shown[1]}")
    if any(map(is_frozen_by_inference, variable.local_tensors)):
        raise SettingsError(
            f"{variable.name} was made under torch.inference_mode(): apply the plan under it."
        )
    why = why_unwritable(variable.local_tensors)
    if why is not None:
        raise _changed(variable.name, f"it {why}, so that it cannot be filled in place")


def _check_sources(plan: WarmStartPlan) -> None:
    """The same of tensors that the caller has in memory; a file tells itself that it is another."""
    specs = {spec.key: spec for part in parts_read(plan.items) for spec in part.sources}
    for key in plan.checkpoint.keys_in_memory(specs):
        then, now = specs[key], plan.checkpoint.get(key)
        if now is None or (now.shape, now.dtype) != (then.shape, then.dtype):
            raise _changed(
                f"{key!r} of {plan.checkpoint.url}", "it is a tensor of another shape or dtype"
            )


def _changed(what: str, how: str) -> SettingsError:
    return SettingsError(f"{what} has changed since the plan was made ({how}): make a new plan.")
