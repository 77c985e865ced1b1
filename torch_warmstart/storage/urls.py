"""Paths and URLs as text: what lies in what, and which names may be followed.

They are plain `str`, because `pathlib.Path` collapses `gs://`.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

from torch_warmstart.errors import CorruptCheckpointError

WEB = ("http://", "https://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and what no path can be made of
_LONGEST = 2048  # of a name, in characters; a path has 4,096 bytes at most
_SEPARATOR = re.compile(r"[/\\]")  # of what Windows wrote, too
_DRIVE = re.compile(r"[A-Za-z]:")


def join(directory: str, name: str) -> str:
    """A path in a directory; of a `name` that a file told use `below`."""
    if is_remote(directory):
        return directory.rstrip("/") + "/" + name
    return os.path.join(directory, name)


def below(directory: str, name: str) -> str:
    """The file that another file names: a relative path below the directory, joined as text.

    Whatever else a file may say (another scheme, a chain of them, another host, an absolute path, a
    way up) is refused with a CorruptCheckpointError. This is the one place where a name out of a
    file becomes a path.
    """
    if not stays_below(name):
        raise CorruptCheckpointError(
            f"{directory}: a file of the checkpoint is named {name[:200]!r}, which is not in "
            "its directory."
        )
    return join(directory, quote(name) if is_web(directory) else name)


def stays_below(name: str) -> bool:
    """Whether a name is a relative path that leads down; servers read `%2e%2e` as `..`."""
    return _leads_down(name) and _leads_down(_unquoted(name))


def _leads_down(name: str) -> bool:
    parts = name.split("/")
    return not (
        "" in parts  # also an absolute path, `//host/share`, and `://`
        or ".." in parts
        or "::" in name
        or "\\" in name
        or len(name) > _LONGEST
        or _CONTROL.search(name)
        or _DRIVE.match(name)
    )


def _unquoted(name: str) -> str:
    """A name with all percent-encodings undone, those of percent signs too."""
    before = None
    while name != before:
        before, name = name, unquote(name)
    return name


def seen_from(directory: str, named: str) -> str | None:
    """A path that another program wrote, as it is below a directory; None if it leads elsewhere.

    With slashes where Windows has backslashes. Whether it may be followed is said by `below`.
    """
    for here in (directory, os.path.abspath(directory)):
        if named.startswith(here.rstrip("/") + "/"):
            return named[len(here.rstrip("/")) + 1 :]
    parts = _SEPARATOR.split(named)
    leads_out = is_remote(named) or named[:1] in ("/", "\\") or ".." in parts
    return None if leads_out or parts[0].endswith(":") else "/".join(parts)


def last_part(named: str) -> str:
    """The last part of a path that another program wrote, perhaps on Windows."""
    return _SEPARATOR.split(named)[-1]


def parent(url: str) -> str:
    """The directory a path is in (`.` for a bare name); of a host or a bucket, itself.

    What a web address asks for besides its path is left out, with the slashes in it.
    """
    if is_remote(url):
        url = url.partition("?")[0] if is_signed(url) else url
        inside = url.rstrip("/").rpartition("/")[0]
        return url.rstrip("/") if inside.endswith(":/") else inside
    return os.path.dirname(url) or "."


def base_name(url: str) -> str:
    """The last part of a path."""
    return url.rstrip("/").rsplit("/", 1)[-1] if is_remote(url) else os.path.basename(url)


def is_remote(url: str) -> bool:
    """True for `scheme://...`."""
    return "://" in url


def is_web(url: str) -> bool:
    """Whether a web server is asked for it."""
    return url.startswith(WEB)


def is_signed(url: str) -> bool:
    """True for a web address with a query, which stands for one file: no name can be appended."""
    return is_web(url) and "?" in url


def here() -> str:
    """The directory where relative paths begin; "" if it is gone: nothing will be found in it."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""
