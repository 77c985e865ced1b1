"""A warm start for loops that Accelerate prepares; `pip install accelerate`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

from torch_warmstart import api
from torch_warmstart.errors import MissingDependencyError
from torch_warmstart.execution import WarmStartReport
from torch_warmstart.integrations.once import all_processes
from torch_warmstart.settings import WarmStartSettings

try:
    from accelerate import Accelerator
except ImportError as _error:
    raise MissingDependencyError(
        "torch_warmstart.integrations.accelerate needs accelerate: pip install accelerate"
    ) from _error


def warm_start(
    accelerator: Accelerator,
    model: torch.nn.Module,
    settings: WarmStartSettings | Any,
    *,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    timeout: timedelta | float | None = None,
    progress: bool | None = None,
) -> WarmStartReport:
    """Warm-starts a model in place, before or after `accelerator.prepare`, in all its processes.

    What `prepare` has wrapped around model and optimizer is looked through, and the processes start
    together: none writes before all can, and new rows are the same in each. With plugins that
    flatten parameters (DeepSpeed, the first FSDP) call it before `prepare`.

    A loop that resumes calls `accelerator.load_state` *instead* of this.

    Args:
        accelerator: The loop's own.
        model: The model, prepared or not.
        settings: As for `torch_warmstart.warm_start`; the names are those of the model before it
            was prepared.
        optimizer: As for `torch_warmstart.warm_start`, prepared or not.
        timeout: How long processes wait for each other, in seconds; None: 30 minutes.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        An account of every variable and row.

    Raises:
        PlanError: with every problem there is. Nothing has been changed.

    Example:
        >>> from torch_warmstart.integrations.accelerate import warm_start
        >>> model, optimizer = accelerator.prepare(model, optimizer)             # doctest: +SKIP
        >>> warm_start(accelerator, model, "old.pt", optimizer=optimizer)        # doctest: +SKIP
    """
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        optimizer = list(optimizer) or None
    return api.warm_start(
        accelerator.unwrap_model(model),
        settings,
        optimizer=optimizer,
        process_group=all_processes(),
        timeout=timeout,
        progress=progress,
    )
