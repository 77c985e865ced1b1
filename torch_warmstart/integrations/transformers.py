"""A callback for Hugging Face's Trainer; `pip install 'torch-warmstart[transformers]'`."""

from __future__ import annotations

from typing import Any

import torch

from torch_warmstart.errors import MissingDependencyError
from torch_warmstart.integrations.once import StartsOnce

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as _error:
    raise MissingDependencyError(
        "torch_warmstart.integrations.transformers needs transformers: pip install "
        "'torch-warmstart[transformers]'"
    ) from _error


class WarmStartCallback(StartsOnce, TrainerCallback):
    """Warm-starts the model of a Hugging Face `Trainer` before the first step of `train`.

    Model and optimizer are filled when Accelerate has prepared them: on their device and, in
    several processes, by all of them together, with the same new rows in each. A run that resumes
    from a checkpoint is left as it is, and so is a model that this callback has warm-started
    before: `train` may be called again.

    Where the Trainer flattens parameters (DeepSpeed, the first FSDP), call
    `torch_warmstart.warm_start` before the Trainer is made instead; the plan is refused here.

    Args:
        settings: As for `torch_warmstart.warm_start`.
        optimizer: Take the state of the selected parameters' slots along.
        timeout: How long processes wait for each other, in seconds; None: 30 minutes.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Attributes:
        report: What was done, a `WarmStartReport`; None before, and where nothing was done.

    Raises:
        PlanError: within `train`, with every problem there is. Nothing has been changed.

    Example:
        >>> from torch_warmstart.integrations.transformers import WarmStartCallback
        >>> trainer = Trainer(model, args, callbacks=[WarmStartCallback("old")])  # doctest: +SKIP
        >>> trainer.train()                                                       # doctest: +SKIP
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **others: Any,
    ) -> None:
        if state.global_step > 0:
            self._start.skip()
        elif model is not None:
            self._start.run(model, [optimizer] if self._takes_optimizer and optimizer else None)
