"""Where a TensorFlow checkpoint is, whatever the user pointed at.

A checkpoint is named by its prefix (`dir/model.ckpt-100`). Users also point at its directory, at
one of its files, at a SavedModel or at a SavedModel's `variables` folder. Names are compared, never
globbed, so brackets and stars in paths are ordinary characters.

In the older format V1 the prefix is the file itself, or of a checkpoint in several files
`P-00000-of-0000n` it is the pattern `P-?????-of-0000n`, with five question marks.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from torch_warmstart.errors import CheckpointNotFoundError
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import (
    STATE_FILE,
    is_prefix,
    is_state_file,
    is_table,
    own_prefix,
)
from torch_warmstart.formats.tensorflow.state_file import parse_state
from torch_warmstart.storage import LOCAL, Storage, base_name, is_remote, is_signed, join, parent

_SHARD_OF_V1 = re.compile(r"(.+)-(?:\d{5}|\?{5})-of-(\d{5})", re.DOTALL)
_SHOWN = 8  # files listed in an error


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint that is there."""

    prefix: str  # what TensorFlow calls it
    v1_files: tuple[str, ...] = ()  # empty: it is of format V2


def find(url: str, storage: Storage = LOCAL) -> Found:
    """The checkpoint a path stands for; raises CheckpointNotFoundError.

    In this order: a prefix; one of the files of a prefix, or the state file; a directory with a
    state file, a SavedModel, its `variables` folder, a directory with only one index; and then the
    same for V1. A directory with a state file comes before a prefix of the same name, as in
    TensorFlow.
    """
    if not is_signed(url) and storage.exists(join(url, STATE_FILE)):
        return _from_state_file(url, storage)
    prefix = own_prefix(url, storage)
    if prefix is not None:
        return Found(prefix)
    if is_state_file(url, storage):
        return _from_state_file(parent(url), storage)
    if storage.is_directory(url):
        return Found(_from_directory(url, storage))
    found = _find_v1(url.removesuffix(".meta"), storage)
    if found is not None:
        return found
    raise nothing_at(url, storage)


def look_up(place: Place) -> Found | None:
    """As `find`, once a place; None if there is none."""
    return place.once(_find_or_none)


def sniff_v1(place: Place) -> str | None:
    """Whether a path is a table, or stands for files of a V1 checkpoint."""
    found = look_up(place)
    if found is not None and found.v1_files:
        return None
    if place.is_file:
        return "does not end as an SSTable does"
    return f"no {base_name(place.url)}-?????-of-*"


def _find_or_none(place: Place) -> Found | None:
    try:
        return find(place.url, place.storage)
    except CheckpointNotFoundError:
        return None


def latest_checkpoint(directory: str, storage: Storage = LOCAL) -> str | None:
    """The prefix that a directory's `checkpoint` file names, or None if there is no such file.

    Raises:
        CorruptCheckpointError: the file cannot be parsed.
        CheckpointNotFoundError: it names a checkpoint that is gone.
    """
    if not storage.exists(join(directory, STATE_FILE)):
        return None
    return _from_state_file(directory, storage).prefix


def _find_v1(url: str, storage: Storage) -> Found | None:
    """The V1 checkpoint that a path is, or is a file, the pattern or the common part of."""
    is_file = storage.exists(url)
    if is_file and not is_table(storage.open(url)):
        return None
    match = _SHARD_OF_V1.fullmatch(url)
    if match and int(match[2]):
        found = _sharded_v1(match[1], int(match[2]))
        if is_file or storage.exists(found.v1_files[0]):
            return found  # opening it tells if a file is missing
    if is_file:
        return Found(url, (url,))
    counts = _v1_shard_counts(url, storage)
    if len(counts) > 1:
        patterns = ", ".join(repr(_sharded_v1(url, count).prefix) for count in counts)
        raise CheckpointNotFoundError(
            f"{url} stands for several checkpoints; pass one: {patterns}."
        )
    return _sharded_v1(url, counts[0]) if counts else None


def _sharded_v1(prefix: str, count: int) -> Found:
    files = tuple(f"{prefix}-{number:05d}-of-{count:05d}" for number in range(count))
    return Found(f"{prefix}-?????-of-{count:05d}", files)


def _v1_shard_counts(prefix: str, storage: Storage) -> list[int]:
    """Into how many files a prefix is split; stale files of another save may be there too."""
    present: Counter[int] = Counter()
    for name in storage.list_directory(parent(prefix)) if base_name(prefix) else ():
        match = _SHARD_OF_V1.fullmatch(name)
        if match and match[1] == base_name(prefix) and int(match[2]):
            present[int(match[2])] += 1
    complete = [count for count in present if present[count] == count]
    return sorted(complete or present)


def _from_state_file(directory: str, storage: Storage) -> Found:
    url = join(directory, STATE_FILE)
    named, _ = parse_state(storage.read_all(url).tobytes(), url)
    if named is None:
        raise CheckpointNotFoundError(
            f"{url} names no checkpoint (it has no model_checkpoint_path)."
            f"{_prefixes_hint(directory, storage)}"
        )
    here, as_named = join(directory, base_name(named)), join(directory, named)
    # A copied directory keeps the absolute path of where it was: its own copy comes first.
    candidates = [here, as_named] if as_named == named else [as_named, here]
    if is_remote(named) and not is_remote(directory):
        candidates = [here]  # a file from anywhere must not send us somewhere over the network
    for candidate in candidates:
        if is_prefix(candidate, storage):
            return Found(candidate)
        found = _find_v1(candidate, storage)
        if found is not None:
            return found
    looked = " and ".join(f"{c}.index" for c in dict.fromkeys(candidates))
    raise CheckpointNotFoundError(
        f"{url} names {named!r} as the latest checkpoint, but there is no {looked}."
        f"{_prefixes_hint(directory, storage)}"
    )


def _from_directory(directory: str, storage: Storage) -> str:
    for inside in ("variables/variables", "variables"):
        if is_prefix(join(directory, inside), storage):
            return join(directory, inside)
    prefixes = _prefixes_in(directory, storage)
    if len(prefixes) == 1:
        return join(directory, prefixes[0])
    if prefixes:
        raise CheckpointNotFoundError(
            f"{directory} has no '{STATE_FILE}' file to say which checkpoint is meant."
            f"{_prefixes_hint(directory, storage)}"
        )
    raise CheckpointNotFoundError(
        f"There is no checkpoint in the directory {directory}: no '{STATE_FILE}' file, no "
        f"variables/variables.index, no *.index. It holds {_listing(directory, storage)}."
    )


def nothing_at(url: str, storage: Storage) -> CheckpointNotFoundError:
    """The error for a path where nothing is."""
    directory = parent(url)
    return CheckpointNotFoundError(
        f"There is no checkpoint at {url}: no such file or directory, and no {url}.index. "
        f"{directory} holds {_listing(directory, storage)}.{_prefixes_hint(directory, storage)}"
    )


def _prefixes_in(directory: str, storage: Storage) -> list[str]:
    suffix = ".index"
    return [n[: -len(suffix)] for n in storage.list_directory(directory) if n.endswith(suffix)]


def _prefixes_hint(directory: str, storage: Storage) -> str:
    prefixes = _prefixes_in(directory, storage)
    if not prefixes:
        return ""
    shown = ", ".join(repr(join(directory, p)) for p in prefixes[:_SHOWN])
    more = f" and {len(prefixes) - _SHOWN} more" if len(prefixes) > _SHOWN else ""
    return f" Checkpoints there: {shown}{more}; pass one of them."


def _listing(directory: str, storage: Storage) -> str:
    names = storage.list_directory(directory)
    if not names:
        return "nothing" if storage.is_directory(directory) else "nothing (it does not exist)"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
