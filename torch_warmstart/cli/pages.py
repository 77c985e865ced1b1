"""Files that a command writes beside its answer: each only if it is free, or with --force."""

from __future__ import annotations

import os
from typing import Any

from torch_warmstart.errors import SettingsError


def check_free(path: str | None, *, force: bool) -> None:
    """Raises SettingsError if a file is there that may not be replaced."""
    if path is not None and os.path.lexists(path) and not force:
        raise SettingsError(
            f"{path} is there already, and stays as it is. Name another file, or pass --force."
        )


def write_page(shown: Any, options: Any) -> str:
    """Writes what `--html` asks for; the line that says so, or ""."""
    if options.html is None:
        return ""
    check_free(options.html, force=getattr(options, "force", False))
    shown.to_html(options.html)
    return f"Wrote {options.html}"
