"""Whether what is copied stays what it was when it was verified.

A file on this machine is looked at again while it is copied: its length, its times, which file it
is. What came from elsewhere lies in a file that nobody else has. A tensor in memory counts its
changes itself; one that is changed past torch, through numpy, is not noticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

from torch_warmstart.execution.commit import SourceChangedError
from torch_warmstart.formats import Checkpoint

_State = tuple[int, int, int, int, int] | None


class Watch:
    """The local files of a checkpoint, and tensors, as they were at first."""

    def __init__(self, checkpoint: Checkpoint, keys: Iterable[str]) -> None:
        """Looks at the files that hold the keys."""
        self._files = {path: _state(path) for path in _local_files(checkpoint, keys)}
        self._tensors: list[tuple[torch.Tensor, int]] = []

    def add(self, tensor: torch.Tensor) -> None:
        """Watches a tensor in memory."""
        if not tensor.is_inference():
            self._tensors.append((tensor, tensor._version))

    def check(self) -> None:
        """Raises SourceChangedError if something has changed."""
        for path, state in self._files.items():
            if _state(path) != state:
                raise SourceChangedError(f"{path} has been changed while it was copied.")
        for tensor, version in self._tensors:
            if tensor._version != version:
                raise SourceChangedError("a tensor of the source was changed while it was copied.")


def _local_files(checkpoint: Checkpoint, keys: Iterable[str]) -> list[str]:
    """Paths of the files that hold tensors; none for a checkpoint in memory or behind a URL."""
    url = checkpoint.url
    folder = url if os.path.isdir(url) else os.path.dirname(url)
    names = dict.fromkeys(name for key in keys for name in checkpoint.location(key).files)
    paths = [os.path.join(folder, name) for name in names]
    return [path for path in paths if os.path.isfile(path)]


def _state(path: str) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
