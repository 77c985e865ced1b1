"""Where a TensorFlow checkpoint is, whatever the user pointed at.

A checkpoint is named by its prefix (`dir/model.ckpt-100`). Users also point at its directory, at
one of its files, at a SavedModel or at a SavedModel's `variables` folder. Names are compared, never
globbed, so brackets and stars in paths are ordinary characters.
"""

from __future__ import annotations

import re

from torch_warmstart import storage
from torch_warmstart.errors import CheckpointNotFoundError
from torch_warmstart.formats.state_file import parse_state

STATE_FILE = "checkpoint"
_FILE_OF_PREFIX = re.compile(r"(.+)\.(?:index|meta|data-\d{5}-of-\d{5})", re.DOTALL)
_SHOWN = 8  # files listed in an error


def find_prefix(url: str) -> str:
    """The prefix of the V2 checkpoint a path stands for; raises CheckpointNotFoundError.

    In this order: a prefix; one of the files of a prefix, or the state file; a directory with a
    state file, a SavedModel, its `variables` folder, a directory with only one index.
    A directory with a state file comes before a prefix of the same name, as in TensorFlow.
    """
    if storage.is_directory(url) and storage.exists(storage.join(url, STATE_FILE)):
        return _from_state_file(url)
    prefix = own_prefix(url)
    if prefix is not None:
        return prefix
    if storage.base_name(url) == STATE_FILE and storage.exists(url):
        return _from_state_file(storage.parent(url))
    if storage.is_directory(url):
        return _from_directory(url)
    raise _nothing_at(url)


def own_prefix(url: str) -> str | None:
    """The prefix that a path is, or that it is a file of; None if it is neither."""
    if _is_prefix(url):
        return url
    match = _FILE_OF_PREFIX.fullmatch(url)
    return match[1] if match and _is_prefix(match[1]) else None


def latest_checkpoint(directory: str) -> str | None:
    """The prefix that a directory's `checkpoint` file names, or None if there is no such file.

    Raises:
        CorruptCheckpointError: the file cannot be parsed.
        CheckpointNotFoundError: it names a checkpoint that is gone.
    """
    if not storage.exists(storage.join(directory, STATE_FILE)):
        return None
    return _from_state_file(directory)


def _is_prefix(url: str) -> bool:
    return bool(storage.base_name(url)) and storage.exists(url + ".index")


def _from_state_file(directory: str) -> str:
    url = storage.join(directory, STATE_FILE)
    named, _ = parse_state(storage.read_all(url).tobytes(), url)
    if named is None:
        raise CheckpointNotFoundError(
            f"{url} names no checkpoint (it has no model_checkpoint_path)."
            f"{_prefixes_hint(directory)}"
        )
    here, as_named = (
        storage.join(directory, storage.base_name(named)),
        storage.join(directory, named),
    )
    # A copied directory keeps the absolute path of where it was: its own copy comes first.
    candidates = [here, as_named] if as_named == named else [as_named, here]
    for candidate in candidates:
        if _is_prefix(candidate):
            return candidate
    looked = " and ".join(f"{c}.index" for c in dict.fromkeys(candidates))
    raise CheckpointNotFoundError(
        f"{url} names {named!r} as the latest checkpoint, but there is no {looked}."
        f"{_prefixes_hint(directory)}"
    )


def _from_directory(directory: str) -> str:
    for inside in ("variables/variables", "variables"):
        if _is_prefix(storage.join(directory, inside)):
            return storage.join(directory, inside)
    prefixes = _prefixes_in(directory)
    if len(prefixes) == 1:
        return storage.join(directory, prefixes[0])
    if prefixes:
        raise CheckpointNotFoundError(
            f"{directory} has no '{STATE_FILE}' file to say which checkpoint is meant."
            f"{_prefixes_hint(directory)}"
        )
    raise CheckpointNotFoundError(
        f"There is no checkpoint in the directory {directory}: no '{STATE_FILE}' file, no "
        f"variables/variables.index, no *.index. It holds {_listing(directory)}."
    )


def _nothing_at(url: str) -> CheckpointNotFoundError:
    directory = storage.parent(url)
    return CheckpointNotFoundError(
        f"There is no checkpoint at {url}: no such file or directory, and no {url}.index. "
        f"{directory} holds {_listing(directory)}.{_prefixes_hint(directory)}"
    )


def _prefixes_in(directory: str) -> list[str]:
    suffix = ".index"
    return [n[: -len(suffix)] for n in storage.list_directory(directory) if n.endswith(suffix)]


def _prefixes_hint(directory: str) -> str:
    prefixes = _prefixes_in(directory)
    if not prefixes:
        return ""
    shown = ", ".join(repr(storage.join(directory, p)) for p in prefixes[:_SHOWN])
    more = f" and {len(prefixes) - _SHOWN} more" if len(prefixes) > _SHOWN else ""
    return f" Checkpoints there: {shown}{more}; pass one of them."


def _listing(directory: str) -> str:
    names = storage.list_directory(directory)
    if not names:
        return "nothing" if storage.is_directory(directory) else "nothing (it does not exist)"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
