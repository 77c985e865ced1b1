"""Whether what is copied stays what it was when it was verified.

A file on this machine is leased, where the system has that, so that who wants to write to it waits;
else its bytes are copied by a way that notices a cut (`gathering.guarded`). It is looked at again
while it is copied: its length, its times, which file it is. What came from
elsewhere lies in a file that nobody else has. A tensor in memory counts its changes itself; one
that is changed past torch, through numpy, is not noticed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import torch

from torch_warmstart.execution.commit import SourceChangedError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.storage import FileState, Leases, is_safe, state_of


class Watch:
    """The local files of a checkpoint, and tensors, as they were at first."""

    def __init__(self, checkpoint: Checkpoint, keys: Iterable[str]) -> None:
        """Looks at the files that hold the keys, and keeps others from writing to them."""
        paths = checkpoint.local_files(keys)
        self._checkpoint = checkpoint
        self._leases = Leases(paths)
        self._is_all_safe = all(map(is_safe, paths))
        self._files = {path: _state(path) for path in paths}
        self._tensors: list[tuple[torch.Tensor, int]] = []

    def close(self) -> None:
        """Lets others write to the files again."""
        self._leases.close()

    def is_safe(self, keys: Iterable[str]) -> bool:
        """Whether nobody can cut what tensors lie in while it is copied."""
        return self._is_all_safe or all(map(is_safe, self._checkpoint.local_files(keys)))

    def add(self, tensor: torch.Tensor) -> None:
        """Watches a tensor that the caller has; an empty one may be the model's own.

        What is read from a file nobody else can change.
        """
        if self._checkpoint.is_callers and tensor.numel() and not tensor.is_inference():
            self._tensors.append((tensor, tensor._version))

    def leave_out(self, paths: Collection[str]) -> None:
        """Files that the warm start itself writes to: what it takes from them has been read."""
        for path in [path for path in self._files if os.path.realpath(path) in paths]:
            del self._files[path]

    def check_prepared(self) -> None:
        """Raises SourceChangedError if anything is not what it was, or not the same file."""
        for path, state in self._files.items():
            now = _state(path)
            if now is None or state is None or now.inode != state.inode:
                raise SourceChangedError(f"{path} has been replaced while it was read.")
        self.check()

    def check(self) -> None:
        """Raises SourceChangedError if something has changed that is mapped, or in memory.

        A file that another one has replaced is still there for who has mapped it.
        """
        for path, state in self._files.items():
            now = _state(path)
            if now is None or state is None or now.inode != state.inode:
                continue
            if now.is_edited_since(state):
                raise SourceChangedError(f"{path} has been changed while it was copied.")
        for tensor, version in self._tensors:
            if tensor._version != version:
                raise SourceChangedError("A tensor of the source was changed while it was copied.")


def _state(path: str) -> FileState | None:
    try:
        return state_of(os.stat(path))
    except OSError:
        return None
