"""Paths and URLs as text: what lies in what, and which names may be followed.

They are plain `str`, because `pathlib.Path` collapses `gs://`.
"""

from __future__ import annotations

import os

from torch_warmstart.errors import CorruptCheckpointError


def join(directory: str, name: str) -> str:
    """A path in a directory; an absolute `name` or a URL stands for itself."""
    if is_remote(name) or os.path.isabs(name):
        return name
    if is_remote(directory):
        return directory.rstrip("/") + "/" + name
    return os.path.join(directory, name)


def join_sibling(directory: str, name: str) -> str:
    """A file that another file names, which must be in the same directory or below it."""
    parts = name.replace("\\", "/").split("/")
    if not name or is_remote(name) or os.path.isabs(name) or ".." in parts or "" in parts:
        raise CorruptCheckpointError(
            f"{directory}: a file of the checkpoint is named {name!r}, which is not in its "
            "directory."
        )
    return join(directory, name)


def parent(url: str) -> str:
    """The directory a path is in (`.` for a bare name)."""
    if is_remote(url):
        return url.rstrip("/").rsplit("/", 1)[0]
    return os.path.dirname(url) or "."


def base_name(url: str) -> str:
    """The last part of a path."""
    return url.rstrip("/").rsplit("/", 1)[-1] if is_remote(url) else os.path.basename(url)


def is_remote(url: str) -> bool:
    """True for `scheme://...`."""
    return "://" in url


def is_signed(url: str) -> bool:
    """True for a web address with a query, which stands for one file: no name can be appended."""
    return url.startswith(("http://", "https://")) and "?" in url
