"""Files that a command writes beside its answer: each only if it is free, or with --force."""

from __future__ import annotations

import os
from typing import Any

from torch_warmstart import storage
from torch_warmstart.errors import SettingsError


def check_free(path: str | None, *, force: bool, result: str | None = None) -> None:
    """Raises SettingsError if nothing can be written at a path that is named.

    Args:
        path: The page's.
        force: Whether a file that is there is replaced.
        result: Another file that the command writes.
    """
    if path is None:
        return
    if result is not None and os.path.realpath(path) == os.path.realpath(result):
        raise SettingsError(f"--html and --out both name {path}.")
    storage.check_free(path, force=force)


def write_page(shown: Any, options: Any) -> str:
    """Writes what `--html` asks for; the line that says so, or ""."""
    if options.html is None:
        return ""
    check_free(options.html, force=options.force)
    with storage.whole_file(options.html, force=options.force) as file:
        file.write(shown.to_html().encode("utf-8", "backslashreplace"))
    return f"Wrote {options.html}"
