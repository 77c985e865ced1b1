"""Where a TensorFlow checkpoint is, whatever the user pointed at.

A checkpoint is named by its prefix (`dir/model.ckpt-100`). Users also point at its directory, at
one of its files, at a SavedModel or at a SavedModel's `variables` folder. Names are compared, never
globbed, so brackets and stars in paths are ordinary characters.

In the older format V1 the prefix is the file itself, or of a checkpoint in several files
`P-00000-of-0000n` it is the pattern `P-?????-of-0000n`, with five question marks.
"""

from __future__ import annotations

import os
import re
from collections import Counter

from torch_warmstart.errors import CheckpointNotFoundError, CorruptCheckpointError, listed
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import (
    NO_TABLE,
    ONE_FILE,
    STATE_FILE,
    indexed_shard,
    is_prefix,
    is_state_file,
    is_table,
    no_index,
    own_prefix,
    prefix_of,
)
from torch_warmstart.formats.tensorflow.state_file import parse_state
from torch_warmstart.storage import (
    LOCAL,
    Storage,
    base_name,
    below,
    is_remote,
    is_signed,
    join,
    last_part,
    parent,
    seen_from,
)
from torch_warmstart.values import frozen

_SHARD_OF_V1 = re.compile(r"(.*)-(?:\d{5}|\?{5})-of-(\d{5}|\?{5})", re.DOTALL)
_ANY_COUNT = "?????"  # of files; TensorFlow's own documentation names checkpoints so
_MAX_STATE_FILE = 16 << 20  # bytes


@frozen
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
    is_file = storage.exists(url)
    if not is_signed(url) and not is_file and storage.exists(join(url, STATE_FILE)):
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
        return NO_TABLE
    return f"no {base_name(place.url)}-?????-of-*"


def sniff_v2(place: Place) -> str | None:
    """Whether a path stands for a V2 checkpoint, or is a directory, whose opener tells why not."""
    found = look_up(place)
    is_it = place.is_directory or (found is not None and not found.v1_files)
    return None if is_it else no_index(place)


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
    if match and match[2] == _ANY_COUNT:
        return _of_any_count(prefix_of(match[1]), storage)
    if match and int(match[2]):
        found = _sharded_v1(match[1], int(match[2]))
        if is_file or storage.exists(found.v1_files[0]):
            return found  # opening it tells if a file is missing
    return Found(url, (url,)) if is_file else _of_any_count(url, storage)


def _of_any_count(prefix: str, storage: Storage) -> Found | None:
    """The V1 checkpoint in several files of which only the common part is known."""
    counts = _v1_shard_counts(prefix, storage)
    if len(counts) > 1:
        patterns = ", ".join(repr(_sharded_v1(prefix, count).prefix) for count in counts)
        raise CheckpointNotFoundError(
            f"{prefix} stands for several checkpoints; pass one: {patterns}."
        )
    return _sharded_v1(prefix, counts[0]) if counts else None


def _sharded_v1(prefix: str, count: int) -> Found:
    files = tuple(f"{prefix}-{number:05d}-of-{count:05d}" for number in range(count))
    return Found(f"{prefix}-?????-of-{count:05d}", files)


def _v1_shard_counts(prefix: str, storage: Storage) -> list[int]:
    """Into how many files a prefix is split; stale files of another save may be there too."""
    present: Counter[int] = Counter()
    base = prefix.rpartition("/")[2]  # "" where the prefix is all folder
    for name in storage.list_directory(parent(prefix + "x")):
        match = _SHARD_OF_V1.fullmatch(name)
        if match and match[1] == base and match[2].isdecimal() and int(match[2]):
            present[int(match[2])] += 1
    complete = [count for count in present if present[count] == count]
    return sorted(complete or present)


def _from_state_file(directory: str, storage: Storage) -> Found:
    url = join(directory, STATE_FILE)
    named = _latest_named(url, storage)
    if named is None:
        raise CheckpointNotFoundError(
            f"{url} names no checkpoint (it has no model_checkpoint_path)."
            f"{_prefixes_hint(directory, storage)}"
        )
    candidates = _candidates(directory, named)
    for candidate in candidates:
        found = Found(candidate) if is_prefix(candidate, storage) else None
        found = found or _find_v1(candidate, storage)
        if found is not None:
            with storage.named_by(
                url, found.v1_files[0] if found.v1_files else f"{found.prefix}.index"
            ):
                return found
    looked = " and ".join(f"{candidate}.index" for candidate in candidates)
    raise CheckpointNotFoundError(
        f"{url} names {named!r} as the latest checkpoint, but there is no {looked}."
        f"{_elsewhere(directory, named)}{_prefixes_hint(directory, storage)}"
    )


def _latest_named(url: str, storage: Storage) -> str | None:
    source = storage.open(url)
    if source.size > _MAX_STATE_FILE:
        raise CorruptCheckpointError(
            f"{url} has {source.size:,} bytes, too many for a file that names checkpoints."
        )
    return parse_state(source.read(0, source.size).tobytes(), url)[0]


def _candidates(directory: str, named: str) -> list[str]:
    """Where the checkpoint that a state file names may be: never outside of its directory.

    As named, if that is relative or an absolute path into this directory; and the last part of the
    name here, since a directory that was copied keeps the absolute path of where it was.
    """
    inside = seen_from(directory, named)
    last = last_part(named)
    names = dict.fromkeys([last] if inside is None else [inside, last])
    return list(dict.fromkeys(_prefix_below(directory, name) for name in names))


def _prefix_below(directory: str, name: str) -> str:
    """As `below`, of a prefix, which may be all folder: `saver.save(s, "dir/")`."""
    stem = name.rstrip("/")
    if stem in ("", "."):
        return join(directory, "")
    return below(directory, stem) + name[len(stem) :]


def _elsewhere(directory: str, named: str) -> str:
    if seen_from(directory, named) is not None:
        return ""
    return f" Only {directory} is looked into; if {named!r} is meant, pass it."


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
        f"{_file_hint(directory, storage)}"
    )


def _file_hint(directory: str, storage: Storage) -> str:
    """Which of its files may be meant, of formats whose checkpoint is one file."""
    found = [name for name in storage.list_directory(directory) if name.endswith(ONE_FILE)]
    shard = indexed_shard(found[0]) if found else None
    if shard is not None:
        index, count = shard
        return (
            f" {found[0]} is one of {count:,} files of one checkpoint, whose index is not there: "
            f"copy {index}, too."
        )
    return f" Pass the file that is meant, such as {join(directory, found[0])}." if found else ""


def nothing_at(url: str, storage: Storage) -> CheckpointNotFoundError:
    """The error for a path where nothing is."""
    directory = parent(url)
    return CheckpointNotFoundError(
        f"There is no checkpoint at {url}: {_what_is_there(url)}, and no {url}.index. "
        f"{directory} holds {_listing(directory, storage)}.{_prefixes_hint(directory, storage)}"
    )


def _what_is_there(url: str) -> str:
    """Why a path is no file: nothing is there, or a link to nothing, or something like a pipe."""
    if is_remote(url) or not os.path.lexists(url):
        return "no such file or directory"
    if os.path.islink(url) and not os.path.exists(url):
        return f"the link leads to {os.readlink(url)}, which is not there"
    return "it is no regular file"


def _prefixes_in(directory: str, storage: Storage) -> list[str]:
    suffix = ".index"
    return [n[: -len(suffix)] for n in storage.list_directory(directory) if n.endswith(suffix)]


def _prefixes_hint(directory: str, storage: Storage) -> str:
    prefixes = _prefixes_in(directory, storage)
    if not prefixes:
        return ""
    shown = listed(repr(join(directory, prefix)) for prefix in prefixes)
    return f" Checkpoints there: {shown}; pass one of them."


def _listing(directory: str, storage: Storage) -> str:
    names = storage.list_directory(directory)
    if not names:
        return "nothing" if storage.is_directory(directory) else "nothing (it does not exist)"
    return listed(names)
