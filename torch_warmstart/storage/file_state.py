"""By what it is told that a local file is no longer what it was."""

from __future__ import annotations

import os

from torch_warmstart.values import frozen


@frozen
class FileState:
    """What the system knows of a file."""

    inode: tuple[int, int]
    size: int
    written: int  # when it was last written to
    changed: int  # when, by any means: a time can be set, this one cannot
    about: tuple[int, int, int, int]  # what else may have been changed then

    def is_edited_since(self, before: FileState) -> bool:
        """Whether the bytes of the same file may be others; not by a new link to it, or rights."""
        is_touched = self.changed != before.changed and self.about == before.about
        return (self.size, self.written) != (before.size, before.written) or is_touched


def state_of(found: os.stat_result) -> FileState:
    """By what `os.stat` says of it."""
    return FileState(
        (found.st_dev, found.st_ino),
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        (found.st_mode, found.st_nlink, found.st_uid, found.st_gid),
    )
