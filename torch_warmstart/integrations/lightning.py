"""A callback for Lightning's Trainer; `pip install 'torch-warmstart[lightning]'`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from torch_warmstart.errors import MissingDependencyError, SettingsError
from torch_warmstart.integrations.once import StartsOnce

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as _error:
    raise MissingDependencyError(
        "torch_warmstart.integrations.lightning needs lightning: pip install "
        "'torch-warmstart[lightning]'"
    ) from _error

# They make one flat tensor of many parameters, of which no name and no shape is left.
_FLATTENING = ("FSDPStrategy", "DeepSpeedStrategy")


class WarmStart(StartsOnce, Callback):
    """Warm-starts the model of a Lightning `Trainer` before the first step of `fit`.

    Model and optimizers are filled when the strategy has set them up: on their devices, sharded or
    copied, with all processes together and with the same new rows in each. Under `FSDPStrategy` and
    `DeepSpeedStrategy`, which flatten parameters, the model is filled before they do; one that
    `configure_model` makes does not exist by then.

    A run that resumes from a checkpoint is left as it is, and so is a model that this callback has
    warm-started before: `fit` may be called again.

    Args:
        settings: As for `torch_warmstart.warm_start`. The names are those of the LightningModule:
            `net.embed.weight`, if it keeps its network in `self.net`.
        optimizer: Take the state of the selected parameters' slots along, into the optimizers that
            `configure_optimizers` makes.
        timeout: How long processes wait for each other, in seconds; None: 30 minutes.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Attributes:
        report: What was done, a `WarmStartReport`; None before, and where nothing was done. In
            processes that the strategy starts (`ddp_spawn`) it is theirs.

    Raises:
        PlanError: within `fit`, with every problem there is. Nothing has been changed.
        SettingsError: `optimizer=True` with a strategy that flattens parameters.

    Example:
        >>> from torch_warmstart.integrations.lightning import WarmStart
        >>> trainer = Trainer(callbacks=[WarmStart("yesterday.ckpt")])   # doctest: +SKIP
        >>> trainer.fit(model, data)                                     # doctest: +SKIP
    """

    _resumes = False
    # In this very fit: a finder of a learning rate or a batch size saves what it begins with, tries
    # some steps and loads it again, before any other callback's turn.
    _has_saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._resumes = self._has_saved = False
        if _flattens(trainer):
            if self._takes_optimizer:
                raise SettingsError(
                    f"WarmStart(optimizer=True) cannot be done with {_strategy(trainer)}, whose "
                    "optimizer has flat parameters. Leave optimizer out; or use DDP, or "
                    "ModelParallelStrategy with fully_shard."
                )
            self._begin(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        self._resumes = self._resumes or not self._has_saved

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]
    ) -> None:
        self._has_saved = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _flattens(trainer):
            self._begin(trainer, pl_module)

    def _begin(self, trainer: Trainer, model: LightningModule) -> None:
        if self._resumes or (trainer.ckpt_path is not None and not self._has_saved):
            self._start.skip()
        elif trainer.global_step > 0:
            self._start.skip("the trainer goes on with its run")
        else:
            self._start.run(model, trainer.optimizers if self._takes_optimizer else None)
            _begin_averages(trainer, model)


@torch.no_grad()
def _begin_averages(trainer: Trainer, model: LightningModule) -> None:
    """Gives averages that no step is in yet what the model has now.

    `WeightAveraging` and its like begin with a copy of the model, made in their `setup`. Until the
    first update that copy is validated, saved and, at the end, put into the model.
    """
    tensors = dict(_tensors_of(model))
    for callback in trainer.callbacks:
        for average in vars(callback).values():
            if not isinstance(average, AveragedModel) or average.n_averaged:
                continue
            copies = dict(_tensors_of(average.module))
            if {n: t.shape for n, t in copies.items()} == {n: t.shape for n, t in tensors.items()}:
                for name, copy in copies.items():
                    copy.copy_(tensors[name])


def _tensors_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _strategy(trainer: Trainer) -> str:
    return type(trainer.strategy).__name__


def _flattens(trainer: Trainer) -> bool:
    return any(kind.__name__ in _FLATTENING for kind in type(trainer.strategy).__mro__)
