"""Optimizers' states in files beside the weights, as Hugging Face's Trainer and accelerate save.

`optimizer.pt` is the Trainer's, `optimizer.bin` and `optimizer_1.bin` are accelerate's. They are
opened when an optimizer's slots are asked for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.formats.base import Block, Checkpoint, TensorLocation, TensorSpec
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.saved_optimizers import SavedOptimizer
from torch_warmstart.formats.state_dict import StateDictCheckpoint
from torch_warmstart.storage import ByteSource, LocalFile, join

_NAME = re.compile(r"(optimizer(?:_\d+)?)\.(?:pt|bin)")


def with_optimizers(weights: Checkpoint, directory: Place) -> Checkpoint:
    """The checkpoint of a directory's weights, with the optimizers beside it, if there are any."""
    files = {match[1]: name for name in directory.names if (match := _NAME.fullmatch(name))}
    return _WithOptimizers(weights, directory, files) if files else weights


class _WithOptimizers(Checkpoint):
    """Weights, and the slots in other files."""

    has_optimizers_beside = True

    def __init__(self, weights: Checkpoint, directory: Place, files: Mapping[str, str]) -> None:
        self.url, self.format, self.family = weights.url, weights.format, weights.family
        self._weights, self._directory, self._files = weights, directory, files
        self._mapped: list[ByteSource] = []

    def optimizer_states(self) -> tuple[SavedOptimizer, ...]:
        return self._slots.optimizer_states()

    @functools.cached_property
    def _slots(self) -> StateDictCheckpoint:
        from torch_warmstart.formats.torch import load_place

        places = {stem: self._place_of(stem) for stem in sorted(self._files)}
        loaded = {stem: load_place(place) for stem, place in places.items()}
        self._mapped = [place.source for place in places.values()]
        nothing = {"": torch.empty(0, dtype=torch.float32)}  # it must hold a tensor of its own
        return StateDictCheckpoint({"model": nothing, **loaded}, self._directory.url, entry="model")

    def _place_of(self, stem: str) -> Place:
        return Place(join(self._directory.url, self._files[stem]), self._directory.storage)

    def _holder(self, key: str) -> Checkpoint:
        """Who has a key."""
        is_slot = key.partition("/")[0] in self._files and key not in self._weights
        return self._slots if is_slot else self._weights

    def _check(self) -> None:
        """That the files which torch has mapped by itself are what they were."""
        for source in self._mapped:
            if isinstance(source, LocalFile):
                source.check()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def _find(self, key: str) -> TensorSpec | None:
        spec: TensorSpec | None = self._holder(key).get(key)
        return spec

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        self._check()
        return self._holder(spec.key).view_tensor(spec.key, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        self._check()
        return self._holder(spec.key).row_blocks(spec.key, rows)

    def prefetch(self, keys: Sequence[str]) -> None:
        self._weights.prefetch([key for key in keys if self._holder(key) is self._weights])

    def verify(self, key: str) -> None:
        self._holder(key).verify(key)

    def location(self, key: str) -> TensorLocation:
        self.spec(key)
        if self._holder(key) is self._weights:
            return self._weights.location(key)
        return TensorLocation((self._files[key.partition("/")[0]],))

    def metadata(self) -> Any:
        return self._weights.metadata()

    def _close(self) -> None:
        self._weights.close()
