"""Several open checkpoints as one: each key with the number of its checkpoint in front."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.computing import Box
from torch_warmstart.errors import MissingTensorError
from torch_warmstart.formats import Block, Checkpoint, Family, TensorLocation, TensorSpec

_BETWEEN = ":"


def numbered(number: int, spec: TensorSpec) -> TensorSpec:
    """A tensor of the checkpoint of that number, counted from 0, among several."""
    storage = None if spec.storage is None else (number, spec.storage)
    return replace(spec, key=numbered_key(number, spec.key), storage=storage)


def numbered_key(number: int, key: str) -> str:
    """`2:head.weight`, of the checkpoint of number 1."""
    return f"{number + 1}{_BETWEEN}{key}"


def is_numbered(number: int, spec: TensorSpec) -> bool:
    """Whether it is one of that checkpoint."""
    return spec.key.startswith(numbered_key(number, ""))


class SeveralCheckpoints(Checkpoint):
    """What a plan of several sources reads from: `2:encoder.weight` is of the second."""

    format = "several"
    family: Family = "torch"

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        """They stay whose they are, and are closed with this one."""
        self._all = tuple(checkpoints)
        self.url: str = ", ".join(f"{at}: {one.url}" for at, one in enumerate(self._all, 1))
        self.is_callers: bool = any(one.is_callers for one in self._all)
        self.has_checksums: bool = any(one.has_checksums for one in self._all)

    def _split(self, key: str) -> tuple[int, str]:
        number, _, rest = key.partition(_BETWEEN)
        at = int(number) - 1 if number.isdecimal() else -1
        if not 0 <= at < len(self._all):
            raise self._missing(key)
        return at, rest

    def _of(self, key: str) -> tuple[Checkpoint, str]:
        at, rest = self._split(key)
        return self._all[at], rest

    def __iter__(self) -> Iterator[str]:
        for at, checkpoint in enumerate(self._all):
            yield from (numbered_key(at, key) for key in checkpoint)

    def _find(self, key: str) -> TensorSpec | None:
        try:
            at, rest = self._split(key)
            return numbered(at, self._all[at].spec(rest))
        except MissingTensorError:
            return None

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        checkpoint, key = self._of(spec.key)
        return checkpoint.view_tensor(key, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        checkpoint, key = self._of(spec.key)
        return checkpoint.row_blocks(key, rows)

    def _box_blocks(self, spec: TensorSpec, rows: torch.Tensor, box: Box) -> Sequence[Block]:
        checkpoint, key = self._of(spec.key)
        return checkpoint.box_blocks(key, rows, box)

    def _view_box(self, spec: TensorSpec, box: Box) -> torch.Tensor:
        checkpoint, key = self._of(spec.key)
        return checkpoint.view_box(key, box)

    def pieces(self, key: str) -> Sequence[tuple[Box, torch.Tensor]] | None:
        checkpoint, key = self._of(key)
        return checkpoint.pieces(key)

    def prefetch(self, keys: Sequence[str]) -> None:
        for at, checkpoint in enumerate(self._all):
            mine = [rest for number, rest in map(self._split, keys) if number == at]
            if mine:
                checkpoint.prefetch(mine)

    def verify(self, key: str) -> None:
        checkpoint, key = self._of(key)
        checkpoint.verify(key)

    def location(self, key: str) -> TensorLocation:
        checkpoint, key = self._of(key)
        return checkpoint.location(key)

    def local_files(self, keys: Iterable[str]) -> list[str]:
        parts = [self._split(key) for key in keys]
        found = [
            path
            for at, checkpoint in enumerate(self._all)
            for path in checkpoint.local_files([rest for number, rest in parts if number == at])
        ]
        return list(dict.fromkeys(found))

    def keys_in_memory(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if self._all[self._split(key)[0]].is_callers]

    def extra_states(self) -> tuple[str, ...]:
        states = [(at, key) for at, one in enumerate(self._all, 1) for key in one.extra_states()]
        return tuple(f"{at}{_BETWEEN}{key}" for at, key in states)

    def _close(self) -> None:
        for checkpoint in self._all:
            checkpoint.close()
