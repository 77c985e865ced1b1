"""Carrying out a plan: check, prepare, commit, account for it.

What to do has been decided while planning. The model is compared with the plan; what is read is
verified and what is initialised is made (`prepare`); only then is anything written (`commit`).
"""

from __future__ import annotations

import time

import torch

from torch_warmstart.display import progress_bar
from torch_warmstart.errors import SettingsError
from torch_warmstart.execution.commit import commit
from torch_warmstart.execution.prepare import prepare
from torch_warmstart.execution.report import WarmStartReport, make_report
from torch_warmstart.model import model_variables
from torch_warmstart.planning import WarmStartPlan
from torch_warmstart.slots import is_as_planned


def execute_plan(plan: WarmStartPlan, *, progress: bool | None = None) -> WarmStartReport:
    """Carries out a plan; raises before anything is changed, or does all of it."""
    started = time.perf_counter()
    check_unchanged(plan)
    total = 2 * sum(item.nbytes for item in plan.items if item.state != "kept")
    with progress_bar(total, show=progress) as advance, torch.no_grad():
        commit(prepare(plan, advance), advance)
    return make_report(plan, seconds=plan.seconds + time.perf_counter() - started)


def check_unchanged(plan: WarmStartPlan) -> None:
    """The model must still hold the very tensors that were planned for, and the optimizer too."""
    planned = [item.variable for item in plan.items]
    now = [(v.name, id(v.tensor), v.shape) for v in model_variables(plan.model)]
    then = [(v.name, id(v.tensor), v.shape) for v in planned if v.slot is None]
    if now != then:
        changed = next((a[0] for a, b in zip(then, now, strict=False) if a != b), "its variables")
        raise SettingsError(
            f"The model has changed since the plan was made ({changed} is another tensor now): "
            "make a new plan."
        )
    for variable in planned:
        if variable.slot is not None and not is_as_planned(variable):
            raise SettingsError(
                f"The optimizer has changed since the plan was made ({variable.name} is another "
                "tensor now): make a new plan."
            )
