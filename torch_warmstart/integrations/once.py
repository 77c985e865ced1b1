"""What trainers have in common: a model is warm-started once, by all processes together."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

from torch_warmstart import api
from torch_warmstart.execution import WarmStartReport
from torch_warmstart.settings import WarmStartSettings

_LOGGER = logging.getLogger("torch_warmstart")


class StartOnce:
    """Warm-starts the model that a trainer hands over, unless that has been done already.

    Args:
        settings: As for `torch_warmstart.warm_start`.
        timeout: The same; how long processes wait for each other.
        progress: The same.
    """

    def __init__(
        self,
        settings: WarmStartSettings | Any,
        timeout: timedelta | float | None = None,
        progress: bool | None = None,
    ) -> None:
        self.settings = settings
        self.report: WarmStartReport | None = None
        self._timeout = timeout
        self._progress = progress
        self._model: weakref.ref[torch.nn.Module] | None = None

    def has_started(self, model: torch.nn.Module) -> bool:
        """Whether this very model was warm-started here; it may have been trained since."""
        return self._model is not None and self._model() is model

    def run(
        self, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer] | None = None
    ) -> None:
        """Warm-starts a model and, if they are given, its optimizers; raises as `warm_start`."""
        if self.has_started(model):
            self.skip("this model was warm-started before")
            return
        self.report = api.warm_start(
            model,
            self.settings,
            optimizer=list(optimizers) if optimizers else None,
            process_group=all_processes(),
            timeout=self._timeout,
            progress=self._progress,
        )
        self._model = weakref.ref(model)

    def skip(self, why: str = "the run resumes from a checkpoint") -> None:
        """Says why nothing is done: mostly that the run was begun before, as its trainer knows."""
        _LOGGER.info("No warm start: %s.", why)

    def __getstate__(self) -> dict[str, Any]:
        """For trainers that start processes of their own: the copies there have done nothing."""
        return {**vars(self), "report": None, "_model": None}


class StartsOnce:
    """What the trainers' callbacks have in common: their arguments, and the report.

    Stands in front of a trainer's own base class, whose constructor it calls.
    """

    def __init__(
        self,
        settings: WarmStartSettings | Any,
        *,
        optimizer: bool = False,
        timeout: timedelta | float | None = None,
        progress: bool | None = None,
    ) -> None:
        super().__init__()
        self._start = StartOnce(settings, timeout, progress)
        self._takes_optimizer = optimizer

    @property
    def report(self) -> WarmStartReport | None:
        """What the warm start has done."""
        return self._start.report


def all_processes() -> Any:
    """The group of all processes, or None where this one is alone."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.group.WORLD if distributed.get_world_size() > 1 else None
