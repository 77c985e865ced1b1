"""A file that a user asks for: at a path that is free, or that may be replaced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from torch_warmstart.errors import SettingsError, WarmStartError
from torch_warmstart.storage.urls import here, is_remote
from torch_warmstart.storage.whole_files import beside

REPLACE = "replace it with force=True (--force)"


def check_free(path: str, *, force: bool) -> None:
    """Raises SettingsError if nothing can be written at a path, or something is there already."""
    if is_remote(path):
        raise SettingsError(f"{path} is a URL: files are written to local paths only.")
    if not path or "\0" in path:
        raise SettingsError(f"{path!r} cannot be written: it is no path.")
    if os.path.isdir(path):
        raise SettingsError(f"{path} is a directory: name the file to write.")
    folder = os.path.dirname(os.path.join(here(), path)) or os.curdir
    if not os.path.isdir(folder):
        raise SettingsError(f"{path} cannot be written: there is no directory {folder}.")
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"{path} cannot be written: {folder} may not be written into.")
    if os.path.lexists(path) and not force:
        raise SettingsError(
            f"{path} is there already, and stays as it is. Name another file, or {REPLACE}."
        )


@contextlib.contextmanager
def whole_file(path: str, *, force: bool) -> Iterator[IO[bytes]]:
    """A file to write into, which takes its place when the block ends without an error.

    Raises SettingsError: it cannot be written; what was at its place stays.
    """
    check_free(path, force=force)
    try:
        with beside(path) as written:
            with open(written, "w+b") as file:
                yield file
            check_free(path, force=force)
    except WarmStartError:
        raise
    except OSError as error:
        why = error.strerror or error
        raise SettingsError(
            f"{path} cannot be written: {why}. Nothing is left of it, and what was there stays."
        ) from error
