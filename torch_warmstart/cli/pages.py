"""Files that a command writes beside its answer: each only if it is free, or with --force."""

from __future__ import annotations

from typing import Any

from torch_warmstart import storage


def check_free(path: str | None, *, force: bool) -> None:
    """Raises SettingsError if nothing can be written at a path that is named."""
    if path is not None:
        storage.check_free(path, force=force)


def write_page(shown: Any, options: Any) -> str:
    """Writes what `--html` asks for; the line that says so, or ""."""
    if options.html is None:
        return ""
    check_free(options.html, force=options.force)
    with storage.whole_file(options.html, force=options.force) as file:
        file.write(shown.to_html().encode("utf-8", "backslashreplace"))
    return f"Wrote {options.html}"
